"""How long the trials of a sweep will take: from trials of the store that are alike, else from a short training."""

import math
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import Training
from mnist_exp.data.splits import Splits
from mnist_exp.sweep.pruners import asha
from mnist_exp.sweep.space import Choices, Parameter, Space
from mnist_exp.sweep.study import Study
from mnist_exp.tracking.active_run import Timer
from mnist_exp.tracking.costs import Cost

NEAREST = 3  # known trainings that predict another
PROBED = (20, 120)  # batches of an epoch of the short trainings of a probe
BETWEEN = 0.13  # seconds from the end of a run to the start of the next
RECORDING = 0.4  # seconds of a trial in which it is evaluated and recorded, which a probe does not do


@dataclass(frozen=True)
class Probe:
    """What a short training tells. cost: of a training whose program is there. compiling: seconds, if it is not."""

    cost: Cost
    compiling: float


@dataclass(frozen=True)
class Work:
    """What a sweep will train. reached: how many trials are expected to reach the end of each rung, by its epoch."""

    trials: int
    reached: dict[int, float]

    @property
    def epochs(self) -> float:
        """The expected number of epochs of all trials."""
        before, total = 0, 0.0
        for epoch, trials in sorted(self.reached.items()):
            total += (epoch - before) * trials
            before = epoch
        return total

    def __str__(self) -> str:
        rungs = ", ".join(f"{trials:.0f} to epoch {epoch}" for epoch, trials in sorted(self.reached.items()))
        return f"{self.trials} trials, {self.epochs:.0f} epochs: {rungs}"


def work_of(study: Study, trials: int) -> Work:
    """Returns what so many trials of a study are expected to train.

    At a rung of ASHA scores are taken to come in random order. A median that ends trials is not reckoned with. The
    epochs of the folds of a trial are counted on.
    """
    settings, epochs = study.settings, study.epochs
    if study.algorithm == "hyperband":
        from mnist_exp.sweep.samplers import create_sampler
        from mnist_exp.sweep.samplers.hyperband import HyperbandSampler

        sampler = create_sampler(study)
        assert isinstance(sampler, HyperbandSampler)
        return Work(trials, sampler.reached)
    reached = {epochs * study.folds: float(trials)}
    if settings.asha:
        arriving = float(trials)
        for rung in asha.rungs(epochs, settings.first_rung, settings.factor or asha.FACTOR):
            reached[rung] = arriving
            arriving = asha.expected(arriving, settings.factor or asha.FACTOR)
        for fold in range(1, study.folds + 1):
            reached[fold * epochs] = arriving
            arriving = asha.expected(arriving, settings.factor or asha.FACTOR)
    limited = Work(trials, reached)
    if settings.max_epochs is not None and limited.epochs > settings.max_epochs:
        share = settings.max_epochs / limited.epochs
        return Work(math.ceil(trials * share), {epoch: count * share for epoch, count in reached.items()})
    return limited


def predict(known: Sequence[Cost], parameters: int, batch_size: int) -> Cost:
    """Returns what a training with so many parameters and this batch is likely to cost."""
    from sklearn.neighbors import KNeighborsRegressor

    def place(parameters: int, batch_size: int) -> tuple[float, float]:
        return math.log2(parameters), math.log2(batch_size)

    places = [place(cost.parameters, cost.batch_size) for cost in known]
    nearest = KNeighborsRegressor(min(NEAREST, len(known)), weights="distance")
    nearest.fit(np.array(places), np.array([(cost.beside, cost.epoch) for cost in known]))
    ((beside, epoch),) = nearest.predict(np.array([place(parameters, batch_size)]))
    return Cost(parameters, batch_size, float(beside), float(epoch))


def probe(config: RunConfig, splits: Splits) -> Probe:
    """Trains a config three times for some batches and returns what all of them would cost."""
    settings, splits = config.settings(Training), splits.fold(1) if splits.folds else splits
    steps = math.ceil(settings.images_used(len(splits.train)) / settings.batch_size)
    few, many = (min(steps, batches) for batches in PROBED)
    first, second, again = (_train(config, splits, batches) for batches in (few, many, many))
    step = max(0.0, second.epoch - first.epoch) / max(1, many - few)
    epoch = again.epoch + step * (steps - many)
    cost = Cost(again.parameters, settings.batch_size, again.beside + RECORDING, epoch)
    return Probe(cost, max(0.0, second.beside - again.beside))


def _train(config: RunConfig, splits: Splits, batches: int) -> Cost:
    """Trains two epochs of so many batches. The second one counts."""
    from mnist_exp.training.build import build_optimizer
    from mnist_exp.training.fit import fit, prepare_keras

    settings = config.settings(Training).model_copy(update={"batches": batches, "epochs": 2, "program_cache": False})
    timer, ends = Timer(), list[float]()
    with timer("beside"):
        prepare_keras(config.seed, settings)
        model = config.build("model", image_shape=splits.image_shape, classes=len(splits.class_names))
        optimizer = build_optimizer(config, settings.steps(len(splits.train)))

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        ends.append(timer.elapsed("training"))

    with tempfile.TemporaryDirectory() as folder:
        fit(model, optimizer, splits, settings, config.seed, Path(folder), on_epoch=on_epoch, timed=timer)
    beside = timer.seconds["beside"] + timer.seconds["compiling"]
    return Cost(model.count_params(), settings.batch_size, beside, ends[1] - ends[0])


def count_programs(space: Space, trials: int) -> int:
    """Returns how many different programs so many random trials are likely to need.

    Trials that differ in numbers alone, such as rates, share one.
    """
    rng = random.Random(0)

    def choose(parameter: Parameter) -> Any:
        values = parameter.values
        if isinstance(values, Choices) or values.enumerable:
            return rng.choice(parameter.grid)
        return rng.randint(int(values.low), int(values.high)) if values.whole else 0.0

    sampled = (space.sample(choose) for _ in range(trials))
    return len({repr([value for value in values.values() if not isinstance(value, float)]) for values in sampled})


def ratio_of_survivors(known: Sequence[Cost]) -> float:
    """Returns how many times as long an epoch takes in these trainings as in the mean of them.

    At a rung larger nets are more often among the best, so most epochs are those of nets that are slower than the mean.
    """
    mean = statistics.fmean(cost.epoch for cost in known)
    return statistics.fmean((cost.epoch for cost in known), [cost.epochs for cost in known]) / mean if mean else 1.0


def seconds_of(work: Work, costs: Sequence[Cost], executions: int, workers: int) -> float:
    """Returns the expected wall time of the trials. costs: of trials of the sweep, as a sample."""
    beside, epoch = (statistics.fmean(getattr(cost, name) for cost in costs) for name in ("beside", "epoch"))
    runs = 1 if executions == 1 else 1 + executions  # each seed is a run of its own below that of the trial
    alone = (work.trials * beside + work.epochs * epoch) * executions + work.trials * runs * BETWEEN
    return alone / min(workers, work.trials)
