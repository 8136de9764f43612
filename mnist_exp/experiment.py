"""The story of one run: data, model, training, evaluation, record."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from mnist_exp import tracking
from mnist_exp.config.check import check
from mnist_exp.config.run_config import build, differences
from mnist_exp.config.schema import Tracking, Training
from mnist_exp.data.load import load_splits
from mnist_exp.data.splits import Splits
from mnist_exp.errors import TrackingError
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.optimizers import build_optimizer
from mnist_exp.tracking import log_run as recording
from mnist_exp.tracking.active_run import Clock, Record
from mnist_exp.training import fit as training
from mnist_exp.training.fit import check_accuracy, predict, prepare_keras

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Result:
    """What a run returns: plain values, and where its model is.

    metrics: val/ and test/ numbers of the weights used; history: one list an epoch of each of Keras's metrics; seconds:
    wall time of each part of the run.
    """

    name: str
    run_id: str | None
    metrics: dict[str, float]
    history: dict[str, list[float]]
    used_epoch: int
    parameters: int
    class_names: tuple[str, ...]
    seconds: dict[str, float]
    trouble: str | None = None
    uri: str | None = None

    def load_model(self) -> "keras.Model":
        """The trained model, from the tracking store. Raises TrackingError where the run kept none."""
        if self.run_id is None:
            raise TrackingError("a run keeps its model only while it is tracked, but got tracking=off")
        return tracking.load_model(self.uri, self.run_id)


class Listener:
    """Hears how a run goes; this one keeps silent."""

    def data(self, splits: Splits) -> None:
        """The data set is loaded and split."""

    def record(self, record: Record) -> None:
        """The run's folder is there."""

    def model(self, model: "keras.Model", settings: Training, differing: Callable[[], list[str]]) -> None:
        """Training is about to begin; differing() tells what sets the config apart from the defaults."""

    def step(self, epoch: int, step: int, steps: int) -> None:
        """So many steps of this epoch (from 1) are done."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> bool | None:
        """An epoch (from 1) is over; True ends the training here."""

    def evaluating(self) -> None:
        """Training is over; evaluation, figures and tracking follow."""


def run(cfg: DictConfig, choices: Mapping[str, str], listener: Listener | None = None) -> Result:
    """Trains, evaluates and records what the config says.

    choices: the choice made in each config group, recorded beside the values. Raises a UserError before training where
    the config, the data or the store cannot be used, and leaves a failed or interrupted run recorded as such.
    """
    check(cfg)
    listener = listener or Listener()
    clock = Clock()
    with clock("data"):
        splits = load_splits(cfg.dataset)
    listener.data(splits)
    with clock("tracking"):
        name = cfg.name or name_of(choices, cfg.seed)
        record = tracking.start(Tracking(**cfg.tracking), name, cfg.training.resume)
    with recording.ended(record):
        return recorded(record, cfg, choices, splits, listener, clock)


def recorded(
    record: Record, cfg: DictConfig, choices: Mapping[str, str], splits: Splits, listener: Listener, clock: Clock
) -> Result:
    """The part of a run that its record tells of: from the imports to the stored model."""
    listener.record(record)
    settings = Training(**cfg.training)
    with clock("imports"):
        import tensorflow  # noqa: F401
    with clock("tracking"):
        recording.start(record, cfg, choices, splits)
    with clock("building"):
        prepare_keras(cfg.seed, settings)
        model = build(cfg.model, image_shape=splits.image_shape, classes=len(splits.class_names))
        optimizer = build_optimizer(cfg.optimizer, settings.steps(len(splits.train)))
    listener.model(model, settings, partial(differences, cfg, choices))
    with clock("training"):
        history = train(model, splits, optimizer, settings, cfg.seed, record, listener)
    listener.evaluating()
    with clock("evaluation"):
        evaluations = {
            name: Evaluation(part.labels, predict(model, part.images), splits.class_names)
            for name, part in splits.scored.items()
        }
        check_accuracy(history, evaluations)
    metrics = {f"{split}/{key}": value for split, found in evaluations.items() for key, value in found.metrics.items()}
    with clock("artifacts"):
        from mnist_exp.evaluation import run_files as artifacts

        artifacts.write(record.artifacts, model, splits, history, evaluations)
    with clock("tracking"):
        recording.finish(record, cfg, model, splits, history, metrics, clock.seconds)
    return Result(
        name=record.name,
        run_id=record.id,
        metrics=metrics,
        history=history.curves(),
        used_epoch=history.used_epoch,
        parameters=model.count_params(),
        class_names=splits.class_names,
        seconds=clock.seconds,
        trouble=record.trouble,
        uri=record.uri,
    )


def name_of(choices: Mapping[str, str], seed: int) -> str:
    """The name of a run that was given none."""
    chosen = choices.get("experiment") or f"{choices.get('model', 'model')}-{choices.get('optimizer', 'optimizer')}"
    return f"{chosen}-s{seed}"


def train(
    model: "keras.Model",
    splits: Splits,
    optimizer: "keras.optimizers.Optimizer",
    settings: Training,
    seed: int,
    record: Record,
    listener: Listener,
) -> History:
    """Fits the model, each epoch recorded."""
    begun = time.perf_counter()

    def on_epoch(epoch: int, metrics: dict[str, float]) -> bool | None:
        named = {recording.tracked_name(key): value for key, value in metrics.items()}
        record.metrics({**named, "wall_seconds/elapsed": time.perf_counter() - begun}, step=epoch)
        return listener.epoch(epoch, metrics)

    return training.fit(
        model,
        optimizer,
        splits,
        settings,
        seed,
        record.checkpoints,
        on_step=listener.step,
        on_epoch=on_epoch,
    )
