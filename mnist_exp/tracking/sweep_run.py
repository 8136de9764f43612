"""A sweep in the store: one parent run, and one run for each time that a trial is run.

The run of a trial exists, with its values, before the trial starts. The store is the only record of a sweep: the state
of a trial follows from its runs, so every repair after a crash can be repeated.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.secrets import hide
from mnist_exp.tracking import tags
from mnist_exp.tracking.active_run import Status
from mnist_exp.tracking.find import DIGESTS, FINISHED, SWEEPS, experiment_ids, find_run, list_runs
from mnist_exp.tracking.owner import Ownership, check_free, process_tags
from mnist_exp.tracking.store import Store, store_errors
from mnist_exp.tracking.stored_run import StoredRun, TrialRun, download, fetch_run, read_metric_history, to_trial_run

RECORD = "sweep.json"
TEST_SET = "test_set/"  # a parameter, test_set/1 and so on: the runs whose models were evaluated on the test set
DIGEST, _ = DIGESTS
MOST_TESTED = 1000
UNKNOWN = "unknown"  # a run that an earlier version did not record
TRIALS = f"tags.{tags.KIND} = 'trial'"


@dataclass(frozen=True)
class Opening:
    """A model of a sweep that was evaluated on the test set.

    model_run: its run. metrics: its test metrics; empty if the evaluation did not come to its end.
    """

    model_run: str
    metrics: Mapping[str, float]


class SweepRun:
    """The parent run of a sweep and the runs of its trials.

    run: the parent run as it was when the sweep was created or found.
    record: the content of sweep.json, from which the study is restored, with the settings that were changed since.
    ownership: the right to run the sweep; only a process that has it may write.
    """

    def __init__(self, store: Store, run: StoredRun, record: Mapping[str, Any]) -> None:
        self.store, self.run = store, run
        self.id, self.name = run.id, run.name
        self.changes = _read_changes(run)
        changed = {key: value for change in self.changes for key, value in change["settings"].items()}
        self.record = {**record, "settings": {**record["settings"], **changed}}
        self._ownership: Ownership | None = None

    @classmethod
    def create(cls, store: Store, experiment: str, name: str, record: Mapping[str, Any]) -> Self:
        """Creates the run of a new sweep, which is RUNNING from here on, and owned by this process."""
        experiment_id = store.experiment_id(experiment)
        with store_errors(store.uri):
            run_id = store.client.create_run(experiment_id, tags={**process_tags(), tags.RUN_NAME: name}).info.run_id
            store.client.log_dict(run_id, dict(record), RECORD)
            if "digest" in record:
                store.client.log_param(run_id, DIGEST, record["digest"])
            ownership = Ownership.claim(store, fetch_run(store, run_id))
            # Last: after a kill before this line there is nothing that could be resumed.
            store.client.set_tag(run_id, tags.KIND, "sweep")
        sweep = cls(store, fetch_run(store, run_id), record)
        sweep._ownership = ownership
        return sweep

    @classmethod
    def find(cls, store: Store, wanted: str) -> Self:
        """Finds a sweep by id, name or `latest`. Raises TrackingError if it is unknown."""
        run = find_run(store, wanted, among=SWEEPS)
        with store_errors(store.uri):
            if not any(file.path == RECORD for file in store.client.list_artifacts(run.id)):
                raise TrackingError(Problem(run.label, f"has no {RECORD}", remedy="start a new sweep"))
        with download(store, run.id, RECORD) as path:
            return cls(store, run, json.loads(path.read_text()))

    @classmethod
    def resume(
        cls, store: Store, wanted: str, *, force: bool = False, on_wait: Callable[[str], None] = lambda place: None
    ) -> Self:
        """Finds a sweep to resume. Raises TrackingError if it is unknown or another process runs it.

        force: take it from that process. on_wait: called before up to a minute is spent to see whether that process
        lives.
        """
        sweep = cls.find(store, wanted)
        if not force:
            check_free(store, sweep.run, on_wait)
        return sweep

    def take_over(self, change: Mapping[str, Any] | None = None) -> None:
        """Makes this process run the sweep. Runs that an earlier process left pending end here, as superseded.

        change: what the command line changes, "overrides" as they were typed and the "settings" that follow from them.
        Raises TrackingError if another process was faster.
        """
        self._ownership = Ownership.claim(self.store, self.run)
        resumed = {f"{tags.RESUMED}{self._ownership.owner.generation}": json.dumps(change)} if change else {}
        self.store.set_tags(self.id, {**process_tags(), **resumed})
        with store_errors(self.store.uri):
            for key in {tags.ERROR, tags.ENDED_BY} & self.run.tags.keys():
                self.store.client.delete_tag(self.id, key)
            self.store.client.update_run(self.id, status="RUNNING")
        self.run = self.fetch()
        self.changes = _read_changes(self.run)
        self._supersede_pending("the sweep was interrupted")

    @property
    def ownership(self) -> Ownership:
        """The right of this process to run the sweep. Raises RuntimeError if it was only found."""
        if self._ownership is None:
            raise RuntimeError(f"this process does not run {self.run.label}")
        return self._ownership

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

    def log(
        self, metrics: Mapping[str, float], step: int = 0, facts: Mapping[str, str] | None = None,
        when: float | None = None,
    ) -> None:  # fmt: skip
        """Logs metrics and tags of the sweep itself. when: the time of the metrics, in seconds since 1970; else now."""
        self.store.log(self.id, metrics, step, facts, when)

    def openings(self) -> list[Opening]:
        """Returns the models that were evaluated on the test set, in this order. Each one counts for good."""
        run = self.fetch()
        runs = {int(k.removeprefix(TEST_SET)): v for k, v in run.params.items() if k.startswith(TEST_SET)}
        keys = [key for key in run.metrics if key.startswith("test/")]
        points = {key: read_metric_history(self.store, self.id, key) for key in keys}
        # An earlier version logged the metrics of every model at step 0, and the last model as a tag.
        earlier = sum(step == 0 for step, _ in points.get("test/accuracy", ()))
        if earlier:
            runs = {**dict.fromkeys(range(1, earlier), UNKNOWN), earlier: run.tags.get(tags.TESTED, UNKNOWN), **runs}
        by_step = {key: dict(history) for key, history in points.items()}
        steps = {number: 0 if number == earlier else number for number in runs}
        return [
            Opening(runs[number], {key: values[step] for key, values in by_step.items() if step in values})
            for number, step in sorted(steps.items())
        ]

    def open_test_set(self, model_run: str) -> int:
        """Records that the model of a run is about to be evaluated on the test set. Call it before.

        Returns the number of this model among those that were: the step of its metrics. Parameters cannot be changed,
        so the count stays true, also if the evaluation does not come to its end.
        """
        self.ownership.check()
        runs = [opening.model_run for opening in self.openings()]
        if model_run not in runs:
            runs.append(model_run)
        with store_errors(self.store.uri):
            for number, run_id in enumerate(runs, 1):
                self.store.client.log_param(self.id, f"{TEST_SET}{number}", run_id)
        return runs.index(model_run) + 1

    def fetch(self) -> StoredRun:
        """Fetches the parent run as it is now."""
        return fetch_run(self.store, self.id)

    def log_files(self, folder: Path) -> None:
        """Sends the files of this folder to the parent run."""
        with store_errors(self.store.uri):
            self.store.client.log_artifacts(self.id, str(folder))

    def end(self, status: Status, error: str = "") -> None:
        """Sets the status of the parent run and gives up the ownership. The last call. Raises OwnershipLost."""
        self.ownership.check()
        # Nobody knows a run whose request was sent twice, because the answer to the first was lost.
        self._supersede_pending("the sweep has ended")
        self._end(self.id, status, {tags.ERROR: error[:4000]} if error else {})
        self.ownership.release()

    def _end(self, run_id: str, status: Status, facts: Mapping[str, str]) -> None:
        self.store.set_tags(run_id, {key: hide(value) for key, value in facts.items()})
        with store_errors(self.store.uri):
            self.store.client.set_terminated(run_id, status)

    def _supersede_pending(self, why: str) -> None:
        for trial in self._runs():
            if trial.outcome == "pending" and tags.SUPERSEDED not in trial.tags:
                self.supersede(trial.run_id, why)

    def _runs(self) -> list[TrialRun]:
        condition = f"tags.{tags.SWEEP} = '{self.id}' and {TRIALS}"
        with store_errors(self.store.uri):
            return list(map(to_trial_run, list_runs(self.store, condition, [self.run.experiment_id])))


def _read_changes(run: StoredRun) -> list[dict[str, Any]]:
    """Returns what each process changed that has resumed the sweep: its overrides and settings."""
    changes = {int(key.removeprefix(tags.RESUMED)): v for key, v in run.tags.items() if key.startswith(tags.RESUMED)}
    return [json.loads(changes[generation]) for generation in sorted(changes)]


def count_opened(store: Store, digests: Iterable[str]) -> dict[str, int]:
    """Returns for how many models of this store the test set of each data set was opened: runs, and winners of sweeps.

    Of runs outside sweeps at most MOST_TESTED are counted per data set.
    """
    tested = f"tags.{tags.KIND} != 'sweep' and metrics.`test/accuracy` >= 0 and params.`{DIGEST}` = "
    with store_errors(store.uri):
        inside, sweeps = experiment_ids(store), list_runs(store, SWEEPS)
        counts = {
            digest: len(store.client.search_runs(inside, f"{tested}'{digest}'", max_results=MOST_TESTED))
            for digest in digests
        }
        return {d: count + sum(_opened(store, sweep, d) for sweep in sweeps) for d, count in counts.items()}


def _opened(store: Store, sweep: StoredRun, digest: str) -> int:
    opened = sum(key.startswith(TEST_SET) for key in sweep.params) or int(tags.TESTED in sweep.tags)
    if opened and DIGEST not in sweep.params:  # an earlier version logged it with the trials only
        sweep = fetch_run(store, sweep.tags[tags.BEST_RUN])
    return opened if sweep.params.get(DIGEST) == digest else 0


def trained_before(store: Store, hashes: Iterable[str]) -> set[str]:
    """Returns those of the config hashes that a finished trial has."""
    with store_errors(store.uri):
        return {run.tags[tags.CONFIG_HASH] for run in list_runs(store, f"{TRIALS} and {FINISHED}")} & set(hashes)
