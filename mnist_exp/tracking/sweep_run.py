"""A sweep in the store: one parent run, and one run for each time that a trial is run.

The run of a trial exists, with its values, before the trial starts. The store is the only record of a sweep: the state
of a trial follows from its runs, so every repair after a crash can be repeated.
"""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.secrets import hide
from mnist_exp.tracking import tags
from mnist_exp.tracking.active_run import Status
from mnist_exp.tracking.find import FINISHED, SWEEPS, find_run, list_runs
from mnist_exp.tracking.owner import check_not_running, process_tags
from mnist_exp.tracking.store import Store, store_errors
from mnist_exp.tracking.stored_run import StoredRun, TrialRun, download, fetch_run, read_metric_history, to_trial_run

RECORD = "sweep.json"
TRIALS = f"tags.{tags.KIND} = 'trial'"


class SweepRun:
    """The parent run of a sweep and the runs of its trials.

    run: the parent run as it was when the sweep was created or found.
    record: the content of sweep.json, from which the study is restored.
    """

    def __init__(self, store: Store, run: StoredRun, record: Mapping[str, Any]) -> None:
        self.store, self.run, self.record = store, run, record
        self.id, self.name = run.id, run.name

    @classmethod
    def create(cls, store: Store, experiment: str, name: str, record: Mapping[str, Any]) -> Self:
        """Creates the run of a new sweep, which is RUNNING from here on."""
        experiment_id = store.experiment_id(experiment)
        with store_errors(store.uri):
            run_id = store.client.create_run(experiment_id, tags={**process_tags(), tags.RUN_NAME: name}).info.run_id
            store.client.log_dict(run_id, dict(record), RECORD)
            # Last: after a kill before this line there is nothing that could be resumed.
            store.client.set_tag(run_id, tags.KIND, "sweep")
        return cls(store, fetch_run(store, run_id), record)

    @classmethod
    def find(cls, store: Store, wanted: str) -> Self:
        """Finds a sweep by id, name or `latest`. Raises TrackingError if it is unknown."""
        run = find_run(store, wanted, among=SWEEPS)
        with store_errors(store.uri):
            if not any(file.path == RECORD for file in store.client.list_artifacts(run.id)):
                raise TrackingError(Problem(run.label, f"has no {RECORD}", remedy="start a new sweep"))
        return cls(store, run, json.loads(download(store, run.id, RECORD).read_text()))

    @classmethod
    def resume(cls, store: Store, wanted: str) -> Self:
        """Finds a sweep to resume. Raises TrackingError if it is unknown or still runs."""
        sweep = cls.find(store, wanted)
        check_not_running(sweep.run)
        return sweep

    def take_over(self) -> None:
        """Makes this process run the sweep. Runs that an earlier process left pending end here, as superseded."""
        self.store.set_tags(self.id, process_tags())
        with store_errors(self.store.uri):
            self.store.client.update_run(self.id, status="RUNNING")
        for trial in self._runs():
            if trial.outcome == "pending":
                self.supersede(trial.run_id, "the sweep was interrupted")

    def trials(self) -> list[TrialRun]:
        """Returns one run for each trial, by number: the one that ended, else the newest one."""
        chosen: dict[int, TrialRun] = {}
        for trial in self._runs():  # newest first
            if chosen.setdefault(trial.number, trial).outcome == "pending" and trial.outcome != "pending":
                chosen[trial.number] = trial
        return [chosen[number] for number in sorted(chosen)]

    def create_trial(
        self, number: int, name: str, values: Mapping[str, Any], rung: Mapping[str, Any] | None, config_hash: str
    ) -> str:
        """Creates a run for a trial, with its values, and returns the id of the run."""
        run_tags = {
            **process_tags(),
            tags.KIND: "trial",
            tags.SWEEP: self.id,
            tags.TRIAL: str(number),
            tags.VALUES: json.dumps(dict(values)),
            tags.CONFIG_HASH: config_hash,
            tags.PARENT: self.id,
            tags.RUN_NAME: name,
            **({tags.RUNG: json.dumps(dict(rung))} if rung else {}),
        }
        with store_errors(self.store.uri):
            return self.store.client.create_run(self.run.experiment_id, tags=run_tags).info.run_id

    def supersede(self, run_id: str, why: str) -> None:
        """Ends a run that never counts, whatever its process may still log."""
        self._end(run_id, "KILLED", {tags.SUPERSEDED: why})

    def fail(self, run_id: str, error: str) -> None:
        """Marks a trial as FAILED whose worker was killed or which exceeded its time limit."""
        self._end(run_id, "FAILED", {tags.ERROR: error[:4000]})

    def curve(self, run_id: str, metric: str) -> list[float]:
        """Returns a metric of a run, one value per epoch."""
        by_step = dict(read_metric_history(self.store, run_id, metric))
        return [by_step[step] for step in sorted(by_step)]

    def log(self, metrics: Mapping[str, float], step: int = 0, facts: Mapping[str, str] | None = None) -> None:
        """Logs metrics and tags of the sweep itself. step: the number of the trial that ended last."""
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        points = [Metric(key, value, now, step) for key, value in metrics.items()]
        run_tags = [RunTag(key, value) for key, value in (facts or {}).items()]
        with store_errors(self.store.uri):
            self.store.client.log_batch(self.id, points, tags=run_tags)

    def fetch(self) -> StoredRun:
        """Fetches the parent run as it is now."""
        return fetch_run(self.store, self.id)

    def log_files(self, folder: Path) -> None:
        """Sends the files of this folder to the parent run."""
        with store_errors(self.store.uri):
            self.store.client.log_artifacts(self.id, str(folder))

    def end(self, status: Status, error: str = "") -> None:
        """Sets the status of the parent run. The last call."""
        self._end(self.id, status, {tags.ERROR: error[:4000]} if error else {})

    def _end(self, run_id: str, status: Status, facts: Mapping[str, str]) -> None:
        self.store.set_tags(run_id, {key: hide(value) for key, value in facts.items()})
        with store_errors(self.store.uri):
            self.store.client.set_terminated(run_id, status)

    def _runs(self) -> list[TrialRun]:
        condition = f"tags.{tags.SWEEP} = '{self.id}' and {TRIALS}"
        with store_errors(self.store.uri):
            return list(map(to_trial_run, list_runs(self.store, condition, [self.run.experiment_id])))


def trained_before(store: Store, hashes: Iterable[str]) -> set[str]:
    """Returns those of the config hashes that a finished trial has."""
    with store_errors(store.uri):
        return {run.tags[tags.CONFIG_HASH] for run in list_runs(store, f"{TRIALS} and {FINISHED}")} & set(hashes)


def seconds_per_epoch(store: Store, digest: str, model: str) -> list[float]:
    """Returns the seconds per epoch of finished runs and trials with this data set and choice of model."""
    elapsed = "wall_seconds/elapsed"
    with store_errors(store.uri):
        runs = list_runs(store, f"params.`dataset.digest` = '{digest}' and params.model = '{model}'")
    return [
        run.metrics[elapsed] / int(run.params["training.epochs"])
        for run in runs
        if run.is_finished and elapsed in run.metrics
    ]
