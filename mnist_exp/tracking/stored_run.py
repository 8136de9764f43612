"""Runs as the store holds them: plain values, and functions that fetch their files and metrics."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mnist_exp.config.compose import GROUPS
from mnist_exp.config.recorded import ExecutionWhitelist
from mnist_exp.config.schema import later_keys
from mnist_exp.errors import Problem, TrackingError
from mnist_exp.evaluation.predictions import Predictions, read_predictions
from mnist_exp.tracking import tags
from mnist_exp.tracking.store import Store, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Run

PREDICTIONS = "predictions.npz"
SCORE, SPREAD = "score", "score_spread"  # metrics of a trial

Outcome = Literal["complete", "pruned", "failed", "infeasible", "pending"]


@dataclass(frozen=True)
class StoredRun:
    """A run in the store.

    status: RUNNING, FINISHED, FAILED or KILLED.
    started, ended: seconds since 1970; ended is None as long as the run is not over.
    predictions: the arrays of predictions.npz, which `read_run` fetches; None if the run stored none.
    """

    id: str
    name: str
    status: str
    experiment_id: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    started: float
    ended: float | None
    predictions: Predictions | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """The name and the first characters of the id, as messages show a run."""
        return f"{self.name} ({self.id[:8]})"

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return self.status == "FINISHED"

    @property
    def seconds(self) -> float | None:
        """The wall time of the run; None as long as it is not over."""
        return None if self.ended is None else self.ended - self.started

    @property
    def model_run_id(self) -> str:
        """The id of the run that holds the model: for a trial with several seeds, that of its best seed."""
        return self.tags.get(tags.MODEL_RUN, self.id)

    @property
    def set_params(self) -> dict[str, str]:
        """The parameters without those that mean nothing else than their absence, which other versions did not have."""
        return {key: value for key, value in self.params.items() if neutral_params().get(key) != value}

    @property
    def choices(self) -> dict[str, str]:
        """The choice in each config group, such as {"model": "cnn"}."""
        return {group: self.params[group] for group in GROUPS if group in self.params}


@cache
def neutral_params() -> Mapping[str, str]:
    """The parameters that some version of the program does not have, as it would log them for a run of that version."""
    inside = {f"model.augmentation.{kind}": "0.0" for kind in ("translation", "rotation", "zoom")}
    return inside | {key: str(value) for key, value in later_keys().items()}


@dataclass(frozen=True)
class TrialRun:
    """A run of a trial.

    status: MLflow's status.
    outcome: `pending` if the trial has to run again; a complete or pruned trial has a score; an infeasible one was not
    trained, because its net does not meet a constraint.
    excluded: why it may not win; empty if it may.
    ended: seconds since 1970; None as long as the run is not over.
    epochs: of its curve. trained_epochs: of all seeds together, without those of the trial that it continues.
    """

    run_id: str
    number: int
    values: dict[str, Any]
    rung: dict[str, Any] | None
    status: str
    outcome: Outcome
    score: float | None = None
    spread: float | None = None
    error: str = ""
    excluded: str = ""
    epochs: int = 0
    trained_epochs: int = 0
    seconds: float = 0.0
    ended: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_score(self) -> bool:
        """Whether the trial is complete or pruned."""
        return self.score is not None and self.outcome in ("complete", "pruned")

    @property
    def model_run_id(self) -> str:
        """The id of the run that holds the model: with several seeds, that of the best seed."""
        return self.tags.get(tags.MODEL_RUN, self.run_id)


def to_stored_run(run: "Run") -> StoredRun:
    """Returns the plain values of an MLflow run."""
    info, data = run.info, run.data
    ended = info.end_time / 1000 if info.end_time else None
    return StoredRun(
        info.run_id, str(info.run_name), info.status, info.experiment_id, data.params, data.metrics, data.tags,
        info.start_time / 1000, ended,
    )  # fmt: skip


def to_trial_run(run: StoredRun) -> TrialRun:
    """Returns the trial that a run with `kind=trial` belongs to."""
    values = run.tags
    return TrialRun(
        run_id=run.id,
        number=int(values[tags.TRIAL]),
        values=json.loads(values[tags.VALUES]),
        rung=json.loads(values[tags.RUNG]) if tags.RUNG in values else None,
        status=run.status,
        outcome=outcome_of(run),
        score=run.metrics.get(SCORE),
        spread=run.metrics.get(SPREAD),
        error=values.get(tags.ERROR, ""),
        excluded=values.get(tags.VIOLATES, ""),
        epochs=int(values.get(tags.EPOCHS, 0)),
        trained_epochs=int(values.get(tags.TRAINED, values.get(tags.EPOCHS, 0))),
        seconds=run.seconds or 0.0,
        ended=run.ended,
        metrics=run.metrics,
        tags=values,
    )


def outcome_of(run: StoredRun) -> Outcome:
    """Returns how a trial came to its end; `pending` if it has to run again."""
    if tags.SUPERSEDED in run.tags:
        return "pending"
    if run.is_finished and SCORE in run.metrics:
        return "pruned" if tags.PRUNED in run.tags else "complete"
    if run.is_finished and tags.VIOLATES in run.tags:
        return "infeasible"
    return "failed" if run.status == "FAILED" else "pending"


def fetch_run(store: Store, run_id: str) -> StoredRun:
    """Fetches the run with this id."""
    with store_errors(store.uri):
        return to_stored_run(store.client.get_run(run_id))


def read_run(store: Store, run: StoredRun) -> StoredRun:
    """Returns the run together with its predictions."""
    from mlflow.exceptions import MlflowException

    with store_errors(store.uri), tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(store.client.download_artifacts(run.model_run_id, PREDICTIONS, folder))
        except (MlflowException, OSError):
            if any(file.path == PREDICTIONS for file in store.client.list_artifacts(run.model_run_id)):
                raise
            return run
        try:
            return replace(run, predictions=read_predictions(path))
        except ValueError as error:  # pickled, or no file of NumPy's
            rule = f"must have predictions that NumPy reads without pickle ({error})"
            raise TrackingError(Problem(run.label, rule, remedy="leave the run out")) from error


def read_runs(store: Store, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Reads several runs at once: reading ten from a server one after the other took 5 s."""
    with ThreadPoolExecutor(10) as threads:
        return list(threads.map(partial(read_run, store), runs))


@contextmanager
def download(store: Store, run_id: str, path: str) -> Iterator[Path]:
    """Fetches an artifact of a run, a file or a folder, to a place that exists as long as the block."""
    with tempfile.TemporaryDirectory() as folder:
        with store_errors(store.uri):
            fetched = Path(store.client.download_artifacts(run_id, path, folder))
        yield fetched


def read_config(store: Store, run: StoredRun) -> dict[str, Any]:
    """Returns the config of a run as a plain nested dict; for a trial with several seeds, that of its best seed.

    Raises ConfigError if it would run what the whitelist of the store does not allow.
    """
    with download(store, run.model_run_id, "config.yaml") as path:
        return parse_config(path, run.choices, store.whitelist)


def parse_config(path: Path, choices: Mapping[str, str], whitelist: ExecutionWhitelist) -> dict[str, Any]:
    """Returns the values in a run's config.yaml. Raises ConfigError if the whitelist does not allow them."""
    from yaml import YAMLError, safe_load  # type: ignore[import-untyped]

    try:
        values = dict(safe_load(path.read_text(encoding="utf-8")))
    except (YAMLError, ValueError, TypeError) as error:
        raise TrackingError(Problem(str(path), "is not the config of a run", remedy="start a new run")) from error
    whitelist.check(values, choices)
    return values


def read_class_names(store: Store, run: StoredRun) -> list[str]:
    """Returns the names of the classes that a run was scored on, in order."""
    return list(read_report(store, run.model_run_id)["per_class"])


def read_report(store: Store, run_id: str) -> dict[str, Any]:
    """Returns the metrics, numbers per class and confusion matrix of a run on its validation images."""
    with download(store, run_id, "reports/val.json") as path:
        return dict(json.loads(path.read_text(encoding="utf-8")))


def read_curve(store: Store, run_id: str, metric: str) -> list[float]:
    """Returns a metric of a run, one value per epoch."""
    by_step = dict(read_metric_history(store, run_id, metric))
    return [by_step[step] for step in sorted(by_step)]


def read_metric_history(store: Store, run_id: str, metric: str) -> list[tuple[int, float]]:
    """Returns steps and values of a metric, in the order in which they were logged."""
    with store_errors(store.uri):
        points = store.client.get_metric_history(run_id, metric)
    return [(point.step, point.value) for point in sorted(points, key=lambda point: point.timestamp)]
