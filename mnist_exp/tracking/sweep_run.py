"""A sweep in the tracking store: one parent run, and a run for each attempt at a trial, there before it starts.

The store is the only record of a sweep. What a trial came to is a function of its runs, so every repair after a crash
can be repeated.
"""

import json
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from mlflow.entities import Metric, RunTag

from mnist_exp.errors import TrackingError
from mnist_exp.tracking.find import SWEEPS, find_run
from mnist_exp.tracking.owner import is_alive, process_tags
from mnist_exp.tracking.store import Store, answering

if TYPE_CHECKING:
    from mlflow.entities import Run

FROZEN = "sweep.json"
SCORE = "score"


@dataclass(frozen=True)
class Attempt:
    """A run of a trial.

    status: MLflow's; outcome: complete, pruned (which has a score, too), failed, or pending: it has to be run again.
    """

    run_id: str
    number: int
    values: dict[str, Any]
    rung: dict[str, Any] | None
    status: str
    outcome: Literal["complete", "pruned", "failed", "pending"]
    score: float | None = None
    spread: float | None = None
    error: str = ""
    epochs: int = 0
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class SweepRecord:
    """The parent run of a sweep and the runs of its trials."""

    def __init__(self, store: Store, experiment_id: str, run_id: str, name: str, frozen: Mapping[str, Any]) -> None:
        self.store, self.id, self.name, self.frozen = store, run_id, name, frozen
        self._experiment_id = experiment_id
        self._client = store.client

    @classmethod
    def begin(cls, store: Store, experiment: str, name: str, frozen: Mapping[str, Any]) -> Self:
        """The record of a new sweep, RUNNING from here on."""
        experiment_id = store.experiment_id(experiment)
        tags = {**process_tags(), "mlflow.runName": name}
        with answering(store.uri):
            run_id = store.client.create_run(experiment_id, tags=tags).info.run_id
            store.client.log_dict(run_id, dict(frozen), FROZEN)
            store.client.set_tag(run_id, "kind", "sweep")  # last: a kill before leaves nothing that could be resumed
        return cls(store, experiment_id, run_id, name, frozen)

    @classmethod
    def resume(cls, store: Store, wanted: str) -> Self:
        """The record of a sweep that ended before its time. Raises TrackingError where it is unknown or still runs."""
        run = find_run(store, wanted, among=SWEEPS)
        tags, name = run.data.tags, f"{run.info.run_name} ({run.info.run_id[:8]})"
        if run.info.status == "RUNNING" and (tags.get("host") != socket.gethostname() or is_alive(tags)):
            raise TrackingError(
                f"the sweep {name} is still running on {tags.get('host')}, pid {tags.get('pid')}; end it first"
            )
        with answering(store.uri):
            if not any(found.path == FROZEN for found in store.client.list_artifacts(run.info.run_id)):
                raise TrackingError(f"the sweep {name} was interrupted before it was written down; start it anew")
            frozen = json.loads(Path(store.client.download_artifacts(run.info.run_id, FROZEN)).read_text())
        return cls(store, run.info.experiment_id, run.info.run_id, str(run.info.run_name), frozen)

    def take_over(self) -> None:
        """Makes this process the one that runs the sweep; runs a former one left open end here, as superseded."""
        with answering(self.store.uri):
            for key, value in process_tags().items():
                self._client.set_tag(self.id, key, value)
            self._client.update_run(self.id, status="RUNNING")
        for run in self._runs():
            if _outcome(run) == "pending":
                self.supersede(run.info.run_id, "the sweep was interrupted")

    def attempts(self) -> list[Attempt]:
        """The last word on each trial, by number: a scored or failed run, else the newest that is open."""
        found: dict[int, Attempt] = {}
        for run in self._runs():
            attempt = _attempt(run)
            before = found.get(attempt.number)
            if before is None or before.outcome == "pending":
                found[attempt.number] = attempt
        return [found[number] for number in sorted(found)]

    def begin_trial(
        self, number: int, name: str, values: Mapping[str, Any], rung: Mapping[str, Any] | None, config_hash: str
    ) -> str:
        """The id of a new run for this trial, there with its values before anything runs."""
        tags = {
            **process_tags(),
            "kind": "trial",
            "sweep": self.id,
            "trial": str(number),
            "values": json.dumps(dict(values)),
            "config_hash": config_hash,
            "mlflow.parentRunId": self.id,
            "mlflow.runName": name,
            **({"rung": json.dumps(dict(rung))} if rung else {}),
        }
        with answering(self.store.uri):
            return self._client.create_run(self._experiment_id, tags=tags).info.run_id

    def supersede(self, run_id: str, why: str) -> None:
        """An attempt that never counts, whatever its process may still log."""
        with answering(self.store.uri):
            self._client.set_tag(run_id, "superseded", why)
            self._client.set_terminated(run_id, "KILLED")

    def fail(self, run_id: str, error: str) -> None:
        """An attempt that failed without a word of its own: its worker was killed, or it took too long."""
        with answering(self.store.uri):
            self._client.log_batch(run_id, tags=[RunTag("error", error[:4000])])
            self._client.set_terminated(run_id, "FAILED")

    def curve(self, run_id: str, metric: str) -> list[float]:
        """A metric of a run, epoch by epoch."""
        with answering(self.store.uri):
            history = self._client.get_metric_history(run_id, metric)
        by_step = {metric.step: metric.value for metric in history}
        return [by_step[step] for step in sorted(by_step)]

    def log(self, metrics: Mapping[str, float], step: int = 0, tags: Mapping[str, str] | None = None) -> None:
        """Facts about the sweep itself; step: the trial after which they were so."""
        now = int(time.time() * 1000)
        sent = [Metric(key, value, now, step) for key, value in metrics.items()]
        with answering(self.store.uri):
            self._client.log_batch(self.id, sent, tags=[RunTag(key, value) for key, value in (tags or {}).items()])

    def tag(self, key: str) -> str | None:
        """A fact logged before."""
        with answering(self.store.uri):
            return self._client.get_run(self.id).data.tags.get(key)

    def metrics(self, prefix: str) -> dict[str, float]:
        """Metrics logged before whose names begin so."""
        with answering(self.store.uri):
            found = self._client.get_run(self.id).data.metrics
        return {key: value for key, value in found.items() if key.startswith(prefix)}

    def download(self, run_id: str, path: str) -> Path:
        """An artifact of a run, as a file on this machine."""
        with answering(self.store.uri):
            return Path(self._client.download_artifacts(run_id, path))

    def keep(self, folder: Path) -> None:
        """Sends the files of this folder to the parent run."""
        with answering(self.store.uri):
            self._client.log_artifacts(self.id, str(folder))

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"], why: str = "") -> None:
        """Ends the parent run; the last call."""
        with answering(self.store.uri):
            if why:
                self._client.set_tag(self.id, "error", why[:4000])
            self._client.set_terminated(self.id, status)

    def _runs(self) -> "Sequence[Run]":
        condition = f"tags.sweep = '{self.id}' and tags.kind = 'trial'"
        with answering(self.store.uri):
            return self.store.runs(condition, [self._experiment_id])


def trained_before(store: Store, hashes: Iterable[str]) -> set[str]:
    """Of these config hashes those that a finished trial has."""
    runs = store.runs("tags.kind = 'trial' and attributes.status = 'FINISHED'")
    return {run.data.tags["config_hash"] for run in runs} & set(hashes)


def seconds_an_epoch(store: Store, digest: str, model: str) -> list[float]:
    """Of finished runs and trials with this data set and choice of model."""
    runs = store.runs(f"params.`dataset.digest` = '{digest}' and params.model = '{model}'")
    return [
        run.data.metrics["wall_seconds/elapsed"] / int(run.data.params["training.epochs"])
        for run in runs
        if run.info.status == "FINISHED" and "wall_seconds/elapsed" in run.data.metrics
    ]


def _attempt(run: "Run") -> Attempt:
    tags, metrics = run.data.tags, run.data.metrics
    ended = run.info.end_time or run.info.start_time
    return Attempt(
        run.info.run_id,
        int(tags["trial"]),
        json.loads(tags["values"]),
        json.loads(tags["rung"]) if "rung" in tags else None,
        run.info.status,
        _outcome(run),
        metrics.get(SCORE),
        metrics.get("score_spread"),
        tags.get("error", ""),
        int(tags.get("epochs", 0)),
        (ended - run.info.start_time) / 1000,
        metrics,
        tags,
    )


def _outcome(run: "Run") -> Literal["complete", "pruned", "failed", "pending"]:
    tags = run.data.tags
    if "superseded" in tags:
        return "pending"
    if run.info.status == "FINISHED" and SCORE in run.data.metrics:
        return "pruned" if "pruned" in tags else "complete"
    return "failed" if run.info.status == "FAILED" else "pending"


def scored(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Those that have a score."""
    return [attempt for attempt in attempts if attempt.score is not None and attempt.outcome in ("complete", "pruned")]
