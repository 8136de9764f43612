"""A sweep in the store: one parent run, and one run for each time that a trial is run.

The run of a trial exists, with its values, before the trial starts. The store is the only record of a sweep: the state
of a trial follows from its runs, so every repair after a crash can be repeated.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.secrets import hide
from mnist_exp.tracking import tags
from mnist_exp.tracking.active_run import Status
from mnist_exp.tracking.find import DIGESTS, FINISHED, RANKED, SWEEPS, experiment_ids, find_run, list_runs
from mnist_exp.tracking.owner import Ownership, check_free, process_tags
from mnist_exp.tracking.requests import REQUEST, read_requests
from mnist_exp.tracking.store import Store, store_errors
from mnist_exp.tracking.stored_run import (
    SCORE,
    StoredRun,
    TrialRun,
    download,
    fetch_run,
    outcome_of,
    read_curve,
    read_metric_history,
    to_trial_run,
)

RECORD = "sweep.json"
TEST_SET = "test_set/"  # a parameter, test_set/1 and so on: the runs whose models were evaluated on the test set
DIGEST, _ = DIGESTS
MOST_TESTED = 1000
UNKNOWN = "unknown"  # a run that an earlier version did not record
TRIALS = f"tags.{tags.KIND} = 'trial'"
CONFIRMATIONS = f"tags.{tags.CONFIRMS} IS NOT NULL"


@dataclass(frozen=True)
class Opening:
    """A model of a sweep that was evaluated on the test set.

    model_run: its run. metrics: its test metrics; empty if the evaluation did not come to its end.
    """

    model_run: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Confirmation:
    """A training of a trial with a new seed, counted from 0. score: None if it failed or has not ended."""

    run_id: str
    trial: int
    seed: int
    has_ended: bool
    score: float | None


class SweepRun:
    """The parent run of a sweep and the runs of its trials.

    run: the parent run as it was when the sweep was created or found.
    record: the content of sweep.json, from which the study is restored, with what was changed since.
    ownership: the right to run the sweep; only a process that has it may write. asked_before: how many requests there
    were before this process ran it.
    """

    def __init__(self, store: Store, run: StoredRun, record: Mapping[str, Any]) -> None:
        self.store, self.run = store, run
        self.id, self.name = run.id, run.name
        self.changes = _read_changes(run)
        self.record = dict(record)
        for change in self.changes:
            self.apply(change)
        self._ownership: Ownership | None = None
        self.asked_before = 0

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
        files = [RECORD, *(change["record"] for change in _read_changes(run) if change.get("record"))]
        record: dict[str, Any] = {}
        for name in dict.fromkeys([RECORD, files[-1]]):  # the newest one holds the whole space
            with download(store, run.id, name) as path:
                record |= json.loads(path.read_text())
        return cls(store, run, record)

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
        self.asked_before = len(read_requests(self.run))  # as it was found; they have the numbers from 1
        self._ownership = Ownership.claim(self.store, self.run)
        resumed = {f"{tags.RESUMED}{self._ownership.owner.generation}": json.dumps(change)} if change else {}
        self.store.set_tags(self.id, {**process_tags(), **resumed})
        with store_errors(self.store.uri):
            for key in {tags.ERROR, tags.ENDED_BY} & self.run.tags.keys():
                self.store.client.delete_tag(self.id, key)
            self.store.client.update_run(self.id, status="RUNNING")
        self.run = self.fetch()
        self.changes = _read_changes(self.run)
        retried = {run_id for change in self.changes for run_id in change.get("runs", ())}
        for trial in self._runs():
            if trial.run_id in retried and tags.SUPERSEDED not in trial.tags:  # a process was killed before it did so
                self.supersede(trial.run_id, "the trial runs again, as somebody asked")
        self._supersede_pending("the sweep was interrupted")

    def apply(self, change: Mapping[str, Any]) -> None:
        """Adds a change to the record: settings, and trials that were added to the queue."""
        self.record["settings"] = {**self.record["settings"], **change["settings"]}
        if change.get("values"):
            added = {"source": f"{REQUEST}{change['request']}", "values": change["values"]}
            self.record["queue"] = [*self.record.get("queue", ()), added]

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
        self,
        number: int,
        name: str,
        values: Mapping[str, Any],
        rung: Mapping[str, Any] | None,
        config_hash: str,
        source: str = "",
    ) -> str:
        """Creates a run for a trial, with its values, and returns its id. source: who has chosen the values."""
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
            **({tags.PROPOSED_BY: source} if source else {}),
        }
        return self._create_run(run_tags)

    def create_confirmation(self, trial: TrialRun, name: str, seed: int, config_hash: str) -> str:
        """Creates a run in which a trial is trained again with a new seed, and returns its id."""
        run_tags = {
            **process_tags(),
            tags.KIND: "execution",
            tags.SWEEP: self.id,
            tags.TRIAL: str(trial.number),
            tags.CONFIRMS: str(seed),
            tags.CONFIG_HASH: config_hash,
            tags.PARENT: trial.run_id,
            tags.RUN_NAME: name,
        }
        return self._create_run(run_tags)

    def _create_run(self, run_tags: Mapping[str, str]) -> str:
        """Creates a run of the sweep. Raises OwnershipLost if another process runs the sweep now."""
        with store_errors(self.store.uri):
            run_id = self.store.client.create_run(self.run.experiment_id, tags=dict(run_tags)).info.run_id
        # Now that the run exists: a process that claims the sweep after this check finds the run and supersedes it.
        try:
            self.ownership.check()
        except BaseException:
            self.supersede(run_id, "the sweep was taken over")
            raise
        return run_id

    def confirmations(self) -> list[Confirmation]:
        """Returns the trainings of trials with new seeds: of each the one that ended, else the newest."""
        found: dict[tuple[int, int], Confirmation] = {}
        for run in self._list(CONFIRMATIONS):
            outcome = outcome_of(run)
            score = run.metrics.get(SCORE) if outcome == "complete" else None
            trial, seed = int(run.tags[tags.TRIAL]), int(run.tags[tags.CONFIRMS])
            one = Confirmation(run.id, trial, seed, outcome != "pending", score)
            if not found.setdefault((trial, seed), one).has_ended and one.has_ended:
                found[trial, seed] = one
        return list(found.values())

    def reuse(self, trial: str, found: StoredRun, score: float, facts: Mapping[str, str]) -> None:
        """Gives the run of a trial the result of another run, with its curves and these tags, and ends it."""
        from mlflow.entities import Metric, Param, RunTag

        kept = [key for key in found.metrics if not key.startswith("test/") and key != SCORE]
        more = {key: found.tags[key] for key in tags.OF_TRAINING if key in found.tags}
        more |= {tags.REUSED: found.id, tags.MODEL_RUN: found.model_run_id, **facts}
        with store_errors(self.store.uri):
            points = [point for key in kept for point in self.store.client.get_metric_history(found.id, key)]
            metrics = [Metric(point.key, point.value, point.timestamp, point.step) for point in points]
            metrics.append(Metric(SCORE, score, round(time.time() * 1000), 0))
            params = [Param(key, value) for key, value in found.params.items()]
            self.store.client.log_batch(trial, metrics, params, [RunTag(key, value) for key, value in more.items()])
            self.store.client.set_terminated(trial)

    def supersede(self, run_id: str, why: str) -> None:
        """Ends a run that never counts, whatever its process may still log."""
        self._end(run_id, "KILLED", {tags.SUPERSEDED: why})

    def fail(self, run_id: str, error: str) -> None:
        """Marks a trial as FAILED whose worker was killed or which exceeded its time limit."""
        self._end(run_id, "FAILED", {tags.ERROR: error[:4000]})

    def curve(self, run_id: str, metric: str) -> list[float]:
        """Returns a metric of a run, one value per epoch."""
        return read_curve(self.store, run_id, metric)

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

    def log_dict(self, values: Mapping[str, Any], name: str) -> None:
        """Writes a JSON file of the parent run."""
        with store_errors(self.store.uri):
            self.store.client.log_dict(self.id, dict(values), name)

    def fetch_file(self, name: str) -> Path:
        """Returns a file of the parent run: where it lies, or a copy of it if the store is a server."""
        with store_errors(self.store.uri):
            return Path(self.store.client.download_artifacts(self.id, name))

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
        for run in [*self._list(TRIALS), *self._list(CONFIRMATIONS)]:
            if outcome_of(run) == "pending" and tags.SUPERSEDED not in run.tags:
                self.supersede(run.id, why)

    def _runs(self) -> list[TrialRun]:
        return list(map(to_trial_run, self._list(TRIALS)))

    def _list(self, kind: str) -> list[StoredRun]:
        condition = f"tags.{tags.SWEEP} = '{self.id}' and {kind}"
        with store_errors(self.store.uri):
            return list_runs(self.store, condition, [self.run.experiment_id])


def _read_changes(run: StoredRun) -> list[dict[str, Any]]:
    """Returns what was changed since the sweep began, in this order: by processes that have resumed it, with their
    overrides, and by requests, with their number.
    """
    resumed = {
        (int(key.removeprefix(tags.RESUMED)), 0): json.loads(value)
        for key, value in run.tags.items()
        if key.startswith(tags.RESUMED)
    }
    accepted = {
        (answer.generation, request.number): {"overrides": [], "request": request.number, **asdict(answer.change)}
        for request, answer in ((asked.request, asked.answer) for asked in read_requests(run))
        if answer and answer.accepted
    }
    changes = resumed | accepted
    return [changes[place] for place in sorted(changes)]


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


def find_trained(store: Store, conditions: Mapping[str, str | None], digest: str) -> StoredRun | None:
    """Returns the newest run with these tags that was trained to its end on this data and has its model, else None.

    conditions: None for a tag that it must not have. A trial with several seeds does not count.
    """
    given = [f"tags.`{key}` " + ("IS NULL" if value is None else f"= '{value}'") for key, value in conditions.items()]
    without = [f"tags.{key} IS NULL" for key in (tags.MODEL_RUN, tags.VIOLATES)]
    whole = [RANKED, *without, f"params.`{DIGEST}` = '{digest}'"]
    with store_errors(store.uri):
        for run in list_runs(store, " and ".join([*whole, *given])):
            if store.client.search_logged_models([run.experiment_id], f"source_run_id = '{run.id}'", max_results=1):
                return run
    return None


def trained_before(store: Store, hashes: Iterable[str]) -> set[str]:
    """Returns those of the config hashes that a finished trial has."""
    with store_errors(store.uri):
        return {run.tags[tags.CONFIG_HASH] for run in list_runs(store, f"{TRIALS} and {FINISHED}")} & set(hashes)
