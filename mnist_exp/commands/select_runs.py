"""Chooses the runs that `compare` shows, and says which of them were scored on the same data."""

import difflib
import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mnist_exp.config.objective import Objective
from mnist_exp.config.schema import SWEEP_SECTIONS, Flag, keys_with
from mnist_exp.errors import ConfigError, Problem, TrackingError
from mnist_exp.tracking import tags
from mnist_exp.tracking.find import DIGESTS, FINISHED, experiment_ids, find_run, has_param, list_runs, search_runs
from mnist_exp.tracking.store import Store, store_errors
from mnist_exp.tracking.stored_run import StoredRun

METRIC = "val/accuracy"
MOST_DATA = 5  # tables; a store may hold runs of many data sets
LARGEST = 1e300  # MLflow stores an infinite metric as 1.8e308

Data = tuple[str | None, ...]  # the values of DIGESTS
# Parameters that say where a run was recorded, or follow from others.
LABELS = frozenset(
    {*DIGESTS, *keys_with(Flag.LABEL), "tracking", "export", "dataset.path", "sweep", "sweeps", *SWEEP_SECTIONS}
)


@dataclass(frozen=True)
class Choice:
    """Which runs to compare: those that are named, else the best finished ones.

    sort: the metric that ranks them; None: named runs keep their order, others are ranked by METRIC. top: the number of
    runs per data set. reference: the run that the others are tested against; None: the first one.
    """

    wanted: Sequence[str] = ()
    experiment: str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    sort: str | None = None
    top: int = 10
    reference: str | None = None

    @property
    def objective(self) -> Objective:
        """The metric that ranks, and its direction."""
        return Objective.from_metric(self.sort or METRIC)

    @property
    def keeps_order(self) -> bool:
        """Whether the runs stay in the order in which they were named."""
        return bool(self.wanted) and self.sort is None

    @property
    def named_reference(self) -> str | None:
        """The reference that the user named. None if a ranking chooses it, as it also does for `best`."""
        first = self.wanted[0] if self.keeps_order else None
        name = self.reference or first
        return None if name == "best" else name


def data_of(run: StoredRun) -> Data:
    """Returns what two runs must share to be ranked together: data set and validation images."""
    return tuple(run.params.get(key) for key in DIGESTS)


def describe_data(run: StoredRun) -> str:
    """Returns the data of a run in words."""
    digest, validation = (str(value)[:8] for value in data_of(run))
    return f"{run.params.get('dataset.name', 'data')} {digest}, validation images {validation}"


def metric_of(run: StoredRun, metric: str) -> float | None:
    """Returns a metric of a run, None if it has none or it is not finite."""
    value = run.metrics.get(metric, math.nan)
    return value if abs(value) < LARGEST else None


def rank(runs: Sequence[StoredRun], objective: Objective) -> list[StoredRun]:
    """Returns the runs, the best first and those without the metric last."""
    return sorted(runs, key=lambda run: _rank_key(run, objective))


def _rank_key(run: StoredRun, objective: Objective) -> tuple[bool, float]:
    value = metric_of(run, objective.metric)
    return value is None, 0.0 if value is None else objective.rank(value)


def find_named(store: Store, choice: Choice) -> list[StoredRun]:
    """Finds the runs that are named, each once, ranked if a metric to sort by was given."""
    found = {run.id: run for run in (find_run(store, name, choice.experiment) for name in choice.wanted)}
    return list(found.values()) if choice.keeps_order else rank(list(found.values()), choice.objective)


def find_reference(store: Store, choice: Choice) -> StoredRun | None:
    """Finds the run that the option --reference names."""
    return find_run(store, choice.reference, choice.experiment) if choice.reference else None


def search_by_data(store: Store, choice: Choice) -> list[list[StoredRun]]:
    """Returns the best finished runs of each data set, `top` of each; data sets in the order of their best runs.

    At most MOST_DATA + 1 data sets are searched. Raises an error if there are no runs, or none has the metric.
    """
    groups: list[list[StoredRun]] = []
    digest, validation = DIGESTS
    # What parameters must be equal to and what they must not be: MLflow's search language has no OR.
    left: deque[tuple[dict[str, Any], list[tuple[str, str]]]] = deque([(dict(choice.where), [])])
    while left and len(groups) <= MOST_DATA:
        equal, unequal = left.popleft()
        best = search_runs(store, choice.objective, equal, choice.top, choice.experiment, unequal)
        if not groups:
            check_runs(best)
            check_metric(choice.objective.metric, best)
        if not best:
            continue
        data = data_of(best[0])
        known = {key: value for key, value in zip(DIGESTS, data, strict=True) if value is not None}
        if any(data_of(run) != data for run in best):
            best = search_runs(store, choice.objective, {**equal, **known}, choice.top, choice.experiment, unequal)
        groups.append([run for run in best if data_of(run) == data])
        if digest in known:
            left.append(({**equal, digest: known[digest]}, [*unequal, (validation, known.get(validation, ""))]))
        if digest not in equal:
            left.append((equal, [*unequal, (digest, known.get(digest, ""))]))
    return sorted(groups, key=lambda group: _rank_key(group[0], choice.objective))


def list_trainings(store: Store, choice: Choice) -> list[StoredRun]:
    """Returns the runs of single trainings: the named ones or all finished ones, without pruned trials.

    In the place of a trial with several seeds stand its executions.
    """
    if choice.wanted:
        runs = find_named(store, choice)
        inside = [run.id for run in runs if tags.MODEL_RUN in run.tags]
        runs += [
            one for trial in inside for one in list_runs(store, f"{FINISHED} and tags.`{tags.PARENT}` = '{trial}'")
        ]
    else:
        equal = [has_param(key, value) for key, value in choice.where.items()]
        condition = " and ".join([FINISHED, f"tags.{tags.KIND} != 'sweep'", *equal])
        with store_errors(store.uri):
            found = experiment_ids(store, choice.experiment)
        runs = list_runs(store, condition, found)
    trials = {run.id for run in runs if tags.MODEL_RUN in run.tags and is_counted(run)}
    return check_runs([run for run in runs if _is_training(run, trials)])


def is_counted(run: StoredRun) -> bool:
    """Whether a run is finished and no trial that was pruned or superseded."""
    return run.is_finished and tags.PRUNED not in run.tags and tags.SUPERSEDED not in run.tags


def _is_training(run: StoredRun, trials: Collection[str]) -> bool:
    if run.tags.get(tags.KIND) == "execution":
        return run.tags.get(tags.PARENT) in trials and run.is_finished
    return tags.MODEL_RUN not in run.tags and is_counted(run)


def check_runs(runs: list[StoredRun]) -> list[StoredRun]:
    """Returns the runs. Raises TrackingError if there are none."""
    if not runs:
        remedy = "leave out --where, or start a run"
        raise TrackingError(Problem("the store", "has no finished run with these parameters", remedy=remedy))
    return runs


def check_metric(metric: str, runs: Sequence[StoredRun]) -> None:
    """Raises ConfigError, with the metrics that there are, if none of the runs has the metric."""
    if any(metric in run.metrics for run in runs):
        return
    known = sorted({name for run in runs for name in run.metrics})
    known.sort(key=lambda name: -difflib.SequenceMatcher(None, metric, name).ratio())
    raise ConfigError(Problem("--sort", "must be a metric of the runs", metric, f"there are {', '.join(known)}"))


def find_differences(runs: Sequence[StoredRun]) -> list[str]:
    """Returns the parameters in which the runs differ, in the order of the configs, without LABELS."""
    keys = dict.fromkeys(key for run in runs for key in run.params)
    return [key for key in keys if key not in LABELS and len({run.set_params.get(key) for run in runs}) > 1]


def shown_keys(runs: Sequence[StoredRun], differences: Sequence[str]) -> list[str]:
    """Returns the differences without those that follow from a choice.

    They are `_target_`, and keys that only some runs have, with the same value: model.kernel if one run is a cnn.
    """
    return [
        key
        for key in differences
        if not key.endswith("._target_") and len({run.params[key] for run in runs if key in run.params}) > 1
    ]
