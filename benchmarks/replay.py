"""Replays searches on a table of learning curves in simulated time: no net is trained.

python benchmarks/replay.py benchmarks/tables/mnist-dense.npz --seeds 100 --workers 1 2 8

A worker takes a configuration, waits `--startup` seconds, and reads its next epoch from the table until the search ends
the trial. After every epoch the sweep has the best validation accuracy so far. Shown are, as medians over the seeds:
the epochs and the seconds until this is within 0.3 points of the best configuration of the table, how often that never
happened within the last budget, and how many points are missing at each budget of full trainings. Then each search is
compared with the first one, seed by seed, with Wilcoxon's test.

A configuration has the curve of its first or its second seed, drawn once for each replay; all searches of a replay have
the same. Its seconds per epoch are the median over the rates of the same net and batch size.
"""

import argparse
import heapq
import itertools
import json
import math
import os
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras_tuner
import numpy as np
import optuna
from scipy.stats import wilcoxon
from table import Table, configs_of

from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import format_value
from mnist_exp.sweep.pruners import asha
from mnist_exp.sweep.samplers.base import RandomSampler, hyperparameters
from mnist_exp.sweep.samplers.tpe import TpeSampler
from mnist_exp.sweep.space import Parameter, Space, Values
from mnist_exp.sweep.trial import Proposal

optuna.logging.set_verbosity(optuna.logging.ERROR)
ACCURACY = Objective("val/accuracy", "max")
NEAR = 0.003  # of accuracy
RATES = ("optimizer.learning_rate", "optimizer.momentum")  # on which the time of an epoch does not depend


class Search(Protocol):
    """What is replayed. A trial is (number, values, first epoch, last epoch)."""

    def ask(self) -> tuple[int, Values, int, int] | None:
        """The next trial; None if there is none now."""

    def report(self, number: int, epoch: int, score: float) -> bool:
        """Whether the trial goes on after this epoch."""

    def tell(self, number: int, curve: Sequence[float], pruned: bool) -> None:
        """The trial has ended. curve: of the epochs that it trained."""


@dataclass
class Ours:
    """A sampler of this package, with or without its ASHA."""

    sampler: Any
    epochs: int
    factor: int = 0
    first: int = 1
    seen: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.rungs = asha.rungs(self.epochs, self.first, self.factor) if self.factor else ()

    def ask(self) -> tuple[int, Values, int, int] | None:
        asked = self.sampler.ask()
        return (asked.number, asked.values, 0, self.epochs) if isinstance(asked, Proposal) else None

    def report(self, number: int, epoch: int, score: float) -> bool:
        if epoch not in self.rungs:
            return True
        decision = asha.goes_on(score, self.seen[epoch], self.factor, ACCURACY)
        self.seen[epoch].append(score)
        return decision

    def tell(self, number: int, curve: Sequence[float], pruned: bool) -> None:
        self.sampler.tell(number, max(curve) if pruned else curve[-1], len(curve) if pruned else None)


@dataclass
class TopK:
    """One epoch for each of `many` configurations drawn at random, then the best `few` from the beginning, repeated."""

    sampler: Any
    epochs: int
    many: int
    few: int
    round: list[tuple[float, Values]] = field(default_factory=list)
    chosen: list[Values] = field(default_factory=list)
    asked: int = 0
    values: dict[int, Values] = field(default_factory=dict)

    def ask(self) -> tuple[int, Values, int, int] | None:
        if self.chosen:
            return -1, self.chosen.pop(0), 0, self.epochs
        if self.asked == self.many:  # some of them still run
            return None
        asked = self.sampler.ask()
        if not isinstance(asked, Proposal):
            return None
        self.asked += 1
        self.values[asked.number] = asked.values
        return asked.number, asked.values, 0, 1

    def report(self, number: int, epoch: int, score: float) -> bool:
        return True

    def tell(self, number: int, curve: Sequence[float], pruned: bool) -> None:
        if number < 0:
            return
        self.sampler.tell(number, curve[-1])
        self.round.append((curve[-1], self.values[number]))
        if len(self.round) == self.many:
            best = sorted(self.round, key=lambda one: -one[0])[: self.few]
            self.chosen, self.round, self.asked = [values for _, values in best], [], 0


class Optuna:
    """A loop over Optuna's own study, as in the first example of its documentation of pruners.

    https://optuna.readthedocs.io/en/stable/tutorial/10_key_features/003_efficient_optimization_algorithms.html
    """

    def __init__(self, space: Space, epochs: int, seed: int, pruner: optuna.pruners.BasePruner) -> None:
        self.space, self.epochs, self.asked = space, epochs, dict[int, optuna.Trial]()
        sampler = optuna.samplers.TPESampler(seed=seed)
        self.study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        self.suggest = TpeSampler(space, ACCURACY, 0)._suggest  # the same parameters for all

    def ask(self) -> tuple[int, Values, int, int] | None:
        trial = self.study.ask()
        self.asked[trial.number] = trial
        return trial.number, self.space.sample(partial(self.suggest, trial)), 0, self.epochs

    def report(self, number: int, epoch: int, score: float) -> bool:
        self.asked[number].report(score, epoch)
        return not self.asked[number].should_prune()

    def tell(self, number: int, curve: Sequence[float], pruned: bool) -> None:
        trial = self.asked.pop(number)
        if pruned:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(trial, curve[-1])


class KerasTuner:
    """One of KerasTuner's oracles, as its tuner drives it. A trial's score is its best epoch, as there."""

    def __init__(self, space: Space, epochs: int, oracle: Callable[..., keras_tuner.Oracle]) -> None:
        self.space, self.epochs = space, epochs
        objective = keras_tuner.Objective("accuracy", "max")
        self.oracle = oracle(objective=objective, hyperparameters=hyperparameters(space))
        self.oracle.verbose = 0
        self.oracle.save = self.oracle._save_trial = lambda *args: None
        self.tuners = itertools.count()
        self.trials: dict[int, Any] = {}

    def ask(self) -> tuple[int, Values, int, int] | None:
        trial = self.oracle.create_trial(f"tuner{next(self.tuners)}")
        if trial.status != "RUNNING":
            return None
        codes = trial.hyperparameters.values
        values = self.space.sample(lambda p: p.grid[codes[p.name]] if p.values.enumerable else codes[p.name])
        number = int(trial.trial_id)
        self.trials[number] = trial
        return number, values, codes.get("tuner/initial_epoch", 0), codes.get("tuner/epochs", self.epochs)

    def report(self, number: int, epoch: int, score: float) -> bool:
        return True

    def tell(self, number: int, curve: Sequence[float], pruned: bool) -> None:
        trial = self.trials.pop(number)
        self.oracle.update_trial(trial.trial_id, {"accuracy": max(curve)})
        trial.status = "COMPLETED"
        self.oracle.end_trial(trial)


def hinted(world: "World", factor: float) -> Space:
    """The space with a hint for each learning rate: that of the best configuration with it, times a factor."""

    def hint(parameter: Parameter) -> Parameter:
        if not parameter.key.endswith("learning_rate"):
            return parameter
        having = [
            (values, row) for values, row in zip(world.every, world.curves, strict=True) if parameter.name in values
        ]
        best, _ = max(having, key=lambda one: one[1].max())
        low, *_, high = parameter.grid
        return replace(parameter, best=min(max(best[parameter.name] * factor, low), high))

    return Space(tuple(map(hint, world.space.parameters)))


def create(name: str, world: "World", seed: int) -> Search:
    """Creates a search by its name in SEARCHES, or ours:SAMPLER:FACTOR:FIRST, hinted:WRONG_BY, topk:MANY:FEW."""
    kind, *rest = name.split(":")
    space, epochs = world.space, world.epochs
    samplers = {"tpe": TpeSampler, "random": RandomSampler}
    if kind == "ours":
        return Ours(samplers[rest[0]](space, ACCURACY, seed), epochs, *map(int, rest[1:]))
    if kind == "hinted":
        return Ours(TpeSampler(hinted(world, float(rest[0])), ACCURACY, seed), epochs, 4)
    if kind == "topk":
        return TopK(RandomSampler(space, ACCURACY, seed), epochs, *map(int, rest))
    if kind == "optuna":
        pruners = {
            "off": optuna.pruners.NopPruner,
            "median": optuna.pruners.MedianPruner,
            "halving": optuna.pruners.SuccessiveHalvingPruner,
            "hyperband": partial(optuna.pruners.HyperbandPruner, min_resource=1, max_resource=epochs),
        }
        return Optuna(space, epochs, seed, pruners[rest[0]]())
    # An oracle adds the number of a trial to its seed, so neighbouring seeds would propose nearly the same.
    oracles = {
        "random": partial(keras_tuner.oracles.RandomSearchOracle, max_trials=10**6, seed=1000 * seed + 1),
        "bayesian": partial(keras_tuner.oracles.BayesianOptimizationOracle, max_trials=10**6, seed=1000 * seed + 1),
        "hyperband": partial(
            keras_tuner.oracles.HyperbandOracle, max_epochs=epochs, hyperband_iterations=10**6, seed=1000 * seed + 1
        ),
    }
    return KerasTuner(space, epochs, oracles[rest[0]])


SEARCHES = (
    "ours:tpe:4",
    "ours:random:4",
    "ours:tpe",
    "ours:random",
    "topk:64:4",
    "optuna:off",
    "optuna:median",
    "optuna:halving",
    "optuna:hyperband",
    "kerastuner:random",
    "kerastuner:bayesian",
    "kerastuner:hyperband",
)


@dataclass(frozen=True)
class World:
    """The curves of one replay, and what they cost."""

    space: Space
    every: list[Values]
    rows: dict[str, int]
    curves: np.ndarray  # accuracy, (configurations, epochs)
    seconds: np.ndarray  # (configurations,), of an epoch
    best: float

    @property
    def epochs(self) -> int:
        return self.curves.shape[1]


def _key(values: Values) -> str:
    return format_value({name: format_value(value) for name, value in values.items()})


@cache
def _read(path: Path, epochs: int | None) -> tuple[Table, Space, list[Values], np.ndarray, float]:
    table = Table.read(path)
    table.right = table.right[:, :, :epochs]
    space = configs_of(table.net).space
    every = list(space.combinations())
    shapes = [_key({n: v for n, v in values.items() if n.rpartition("/")[2] not in RATES}) for values in every]
    groups = defaultdict(list)
    for number, shape in enumerate(shapes):
        groups[shape].append(float(np.median(table.seconds[number, 0])))
    seconds = np.array([statistics.median(groups[shape]) for shape in shapes])
    trained = table.seconds[:, :, -1] > 0
    peaks = np.where(trained, table.right.max(axis=2), 0).sum(axis=1) / trained.sum(axis=1) / table.images
    return table, space, every, seconds, float(peaks.max())


def world_of(path: Path, epochs: int | None, seed: int) -> World:
    table, space, every, seconds, best = _read(path, epochs)
    second = np.random.default_rng(seed).random(len(every)) < 0.5
    chosen = (second & (table.seconds[:, 1, -1] > 0)).astype(int)
    curves = table.right[np.arange(len(every)), chosen] / table.images
    rows = {_key(values): number for number, values in enumerate(every)}
    return World(space, every, rows, curves, seconds, best)


@dataclass
class Replayed:
    """What one replay showed. near_*: until near the best, infinite if never. missing: points of accuracy by budget."""

    near_epochs: float
    near_seconds: float
    missing: list[float]
    trials: int
    spent: float  # seconds that the search itself took, for each trial


def replay(
    path: Path, name: str, seed: int, *, workers: int, startup: float, budgets: Sequence[int], epochs: int | None = None
) -> Replayed:
    """Runs one search until it has trained as many epochs as the last budget of full trainings, or has none left."""
    warnings.simplefilter("ignore")
    world = world_of(path, epochs, seed)
    search = create(name, world, seed)
    limit = budgets[-1] * world.epochs
    best, trained, trials, spent, order = 0.0, 0, 0, 0.0, itertools.count()
    near, missing = (math.inf, math.inf), [100.0] * len(budgets)
    events: list[tuple[float, int, tuple[int, int, int, int]]] = []  # when, order, (number, row, epoch, last)
    curves: dict[int, list[float]] = {}
    idle, now = workers, 0.0

    def start() -> None:
        nonlocal idle, trials, spent
        while idle:
            begun = time.perf_counter()
            asked = search.ask()
            spent += time.perf_counter() - begun
            if asked is None:
                return
            number, values, first, last = asked
            row = world.rows[_key(values)]
            idle, trials = idle - 1, trials + 1
            place = next(order)
            curves[place] = []
            heapq.heappush(events, (now + startup + world.seconds[row], place, (number, row, first + 1, last)))

    start()
    while events and trained < limit:
        now, place, (number, row, epoch, last) = heapq.heappop(events)
        trained += 1
        score = float(world.curves[row, epoch - 1])
        curves[place].append(score)
        best = max(best, score)
        for index, budget in enumerate(budgets):
            if trained <= budget * world.epochs:
                missing[index] = 100 * (world.best - best)
        if best >= world.best - NEAR and math.isinf(near[0]):
            near = trained, now
        goes_on = search.report(number, epoch, score)
        if goes_on and epoch < last:
            heapq.heappush(events, (now + world.seconds[row], place, (number, row, epoch + 1, last)))
            continue
        search.tell(number, curves.pop(place), pruned=epoch < last)
        idle += 1
        start()
    return Replayed(*near, missing, trials, spent / max(trials, 1))


def _line(name: str, found: list[Replayed]) -> str:
    def median(values: Iterable[float]) -> float:
        return statistics.median(values)

    epochs, seconds = median(one.near_epochs for one in found), median(one.near_seconds for one in found)
    never = sum(math.isinf(one.near_epochs) for one in found)
    missing = "  ".join(f"{median(one.missing[place] for one in found):5.2f}" for place in range(len(found[0].missing)))
    trials, spent = median(one.trials for one in found), 1000 * median(one.spent for one in found)
    return f"{name:22} {epochs:7.0f} {seconds:8.0f} {never:6d}   {missing}  {trials:7.0f} {spent:4.0f}"


def _pair(ours: list[Replayed], theirs: list[Replayed], what: str) -> str:
    """How many times more the others need, and whether that is more than chance. Never counts as the longest."""
    pairs = [(getattr(a, f"near_{what}"), getattr(b, f"near_{what}")) for a, b in zip(ours, theirs, strict=True)]
    longest = 2 * max([value for pair in pairs for value in pair if math.isfinite(value)], default=1.0)
    logs = [math.log(min(b, longest) / min(a, longest)) for a, b in pairs]
    p = wilcoxon(logs).pvalue if any(logs) else 1.0
    return f"{math.exp(statistics.median(logs)):.2f} times the {what} (p {p:.2g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--search", nargs="+", default=SEARCHES, help="the first is compared with the others")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--startup", type=float, default=0.3, help="seconds of a trial that are not epochs")
    parser.add_argument("--epochs", type=int, help="of a full training, if not all of the table")
    parser.add_argument("--budgets", type=int, nargs="+", default=[10, 30, 100], help="full trainings")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--to", type=Path, help="a JSON file for every result")
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    kept: dict[str, Any] = {}
    with ProcessPoolExecutor(given.processes) as pool:
        for workers in given.workers:
            table, *_, best = _read(given.table, given.epochs)
            what = f"{given.table.stem}, {table.dataset}: best {best:.2%}"
            print(f"{what}, {workers} workers, {len(seeds)} seeds, {given.startup:g} s before a trial")
            print(f"{'search':22} {'epochs':>7} {'seconds':>8} {'never':>6}   missing at {given.budgets}   trials   ms")
            one = partial(
                replay, given.table, workers=workers, startup=given.startup, budgets=given.budgets, epochs=given.epochs
            )
            results: dict[str, list[Replayed]] = {}
            for name in given.search:
                results[name] = list(pool.map(partial(one, name), seeds))
                print(_line(name, results[name]), flush=True)
            ours, *others = given.search
            for name in others:
                ratios = ", ".join(_pair(results[ours], results[name], what) for what in ("epochs", "seconds"))
                print(f"{name} needs {ratios} of {ours}", flush=True)
            kept[str(workers)] = {name: [vars(one) for one in found] for name, found in results.items()}
            if given.to:
                given.to.write_text(json.dumps(kept))


if __name__ == "__main__":
    main()
