"""The calls of a run to its store, in order, in the run's folder: sent now, later, or by `store deliver`.

`record.jsonl` holds every call as a line of JSON. `outbox.json` says how much of it the store has taken and what it has
refused. Both outlive the process. A call may be sent again: its time is part of it, so the store takes it once.
"""

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.secrets import hide
from mnist_exp.tracking import tags
from mnist_exp.tracking.active_run import ARTIFACTS, CHECKPOINTS, MODEL, RECORD, Kind, running_folders
from mnist_exp.tracking.active_run import STATE as CHECKPOINT_STATE
from mnist_exp.tracking.find import SHORTEST, list_runs
from mnist_exp.tracking.owner import end_dead_runs, state_of
from mnist_exp.tracking.registry import upload_model
from mnist_exp.tracking.store import Store, long_retries, store_errors
from mnist_exp.tracking.stored_run import StoredRun, fetch_run

STATE, LOCK = "outbox.json", "deliver.lock"
FAILURES = (MlflowException, SQLAlchemyError, OSError)
PAUSE = 30  # seconds without another try after a call to a store that is away
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """A call to the store. time: in seconds since 1970."""

    kind: Kind
    values: Mapping[str, Any]
    time: float


@dataclass(frozen=True)
class Refusal:
    """A call that the store refused. position: of its line in the record, in bytes."""

    position: int
    kind: Kind
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.reason})"


class Outbox:
    """The calls of one run. A store that is away delays them; one that is refused is set aside and delays no other.

    facts: the tags that identify the process that writes the run, and the kind of the run.
    """

    def __init__(self, store: Store, run_id: str, folder: Path, facts: Mapping[str, str]) -> None:
        self.run_id, self.facts = run_id, dict(facts)
        self.refused: list[Refusal] = []
        self._store, self.folder = store, folder
        self._record, self._sent, self._retry_at = folder / RECORD, 0, 0.0
        self._known: dict[tuple[str, int], float] = {}
        self._save()

    @classmethod
    def open(cls, store: Store, folder: Path, run_id: str) -> "Outbox":
        """Opens the outbox of a run that another process has written.

        An earlier version kept no `outbox.json`. Then the whole record is sent again, except the metrics that the store
        has: their time is not that of the record.
        """
        state = read_state(folder)
        opened = cls.__new__(cls)
        opened.run_id, opened.facts = run_id, dict(state.get("facts", {}))
        opened.refused = [Refusal(**refusal) for refusal in state.get("refused", [])]
        opened._store, opened.folder = store, folder
        opened._record, opened._sent, opened._retry_at = folder / RECORD, int(state.get("sent", 0)), 0.0
        opened._known = {} if state else read_points(store, run_id)
        _drop_broken_line(opened._record)
        return opened

    @property
    def waiting(self) -> bool:
        """Whether calls wait for the store."""
        return self._record.exists() and self._record.stat().st_size > self._sent

    def count_waiting(self) -> int:
        """Returns the number of calls that wait for the store."""
        return sum(1 for _ in self._read(self._sent)) if self.waiting else 0

    def take(self, facts: Mapping[str, str]) -> None:
        """Makes another process the one that writes the run."""
        self.facts |= facts
        self._save()

    def lock(self) -> FileLock:
        """Returns a lock for the end of the run: only one process at a time delivers what is left."""
        return FileLock(self.folder / LOCK)

    def append(self, kind: Kind, values: Mapping[str, Any], when: float | None = None) -> None:
        """Adds a call. `flush` sends it."""
        line = {"kind": kind, "time": time.time() if when is None else when, "values": dict(values)}
        with self._record.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line, default=str) + "\n")

    def flush(self, at_once: bool = False) -> None:
        """Sends what waits, in order, until the store is away. at_once: also if it was away a moment ago."""
        if not self.waiting or (not at_once and time.monotonic() < self._retry_at):
            return
        for position, end, call in self._read(self._sent):
            try:
                self._send(call)
            except Exception as error:  # a call whose own content is broken is refused as well
                if isinstance(error, FAILURES) and not self._answers():
                    LOGGER.warning("the tracking store is away: %s", _reason(error))
                    self._retry_at = time.monotonic() + PAUSE
                    return
                self._set_aside(position, call, _reason(error))
            self._sent = end
            self._save()

    def retry_refused(self) -> None:
        """Sends once more what the store has refused."""
        for refusal in list(self.refused):
            _, _, call = next(self._read(refusal.position))
            try:
                self._send(call)
            except Exception as error:
                LOGGER.warning("the tracking store refuses %s: %s", refusal.kind, _reason(error))
            else:
                self.refused.remove(refusal)
                self._save()

    def read(self) -> list[Call]:
        """Returns every call of the record."""
        return [call for _, _, call in self._read(0)]

    def _set_aside(self, position: int, call: Call, reason: str) -> None:
        """Sets a refused call aside. One with several values is divided first, so that the store takes the others."""
        alone = {"step": call.values["step"]} if call.kind == "metrics" else {}
        names = call.values.keys() - alone.keys()
        if call.kind in ("params", "tags", "metrics") and len(names) > 1:
            for name in call.values:
                if name in names:
                    self.append(call.kind, {name: call.values[name], **alone}, call.time)
            return
        LOGGER.warning("the tracking store refuses %s: %s", call.kind, reason)
        same = [old for old in self.refused if old.kind == call.kind and call.kind == "artifacts"]
        self.refused = [old for old in self.refused if old not in same]  # each sends the whole folder
        self.refused.append(Refusal(position, call.kind, reason))

    def _answers(self) -> bool:
        """Whether the store answers, so that it has refused a call that failed."""
        try:
            self._store.check_file()
            self._store.client.get_run(self.run_id)
        except FAILURES:
            return False
        return True

    def _send(self, call: Call) -> None:
        self._store.check_file()
        client, values = self._store.client, dict(call.values)
        if call.kind == "params":
            # With other characters or longer keys MLflow would refuse all of them.
            params = [Param(re.sub(r"[^\w\-. :/]", "_", key)[:250], str(value)) for key, value in values.items()]
            client.log_batch(self.run_id, params=params)
        elif call.kind == "tags":
            client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in values.items()])
        elif call.kind == "metrics":
            step, when = values.pop("step"), int(call.time * 1000)
            new = {key: float(value) for key, value in values.items() if (key, step) not in self._known}
            points = [Metric(key, value, when, step) for key, value in new.items()]
            client.log_batch(self.run_id, metrics=points)
        elif call.kind == "input":
            name, digest, profile = values["name"], values["digest"][:32], json.dumps(values["profile"])
            dataset = Dataset(name, digest, "local", values["source"], profile=profile)
            client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag(tags.DATA_CONTEXT, "training")])])
        elif call.kind == "artifacts":
            client.log_artifacts(self.run_id, str(self.folder / ARTIFACTS))
        elif call.kind == "model":
            upload_model(self._store, self.run_id, self.folder / MODEL)
        else:
            client.set_terminated(self.run_id, values["status"], int(call.time * 1000))

    def _read(self, position: int) -> Iterator[tuple[int, int, Call]]:
        """Yields the calls from this position on: where the line begins, where it ends, and what it holds."""
        with self._record.open("rb") as lines:
            lines.seek(position)
            while line := lines.readline():
                yield position, lines.tell(), Call(**json.loads(line))
                position = lines.tell()

    def _save(self) -> None:
        refused = [asdict(refusal) for refusal in self.refused]
        state = {
            "run": self.run_id, "store": hide(self._store.uri), "facts": self.facts, "sent": self._sent,
            "refused": refused,
        }  # fmt: skip
        temporary = self.folder / f"{STATE}.new"
        temporary.write_text(json.dumps(state), encoding="utf-8")
        os.replace(temporary, self.folder / STATE)


@dataclass(frozen=True)
class Delivery:
    """What became of the calls of one run. waiting: whether the store is away."""

    name: str
    id: str
    status: str
    delivered: int
    refused: tuple[str, ...]
    waiting: bool
    folder: Path

    @property
    def is_whole(self) -> bool:
        """Whether the store has everything."""
        return not self.refused and not self.waiting


def deliver_runs(store: Store, root: Path, wanted: Sequence[str] = ()) -> list[Delivery]:
    """Delivers what the store has not taken of the runs below root/running that have ended.

    wanted: ids or names of runs; by default all. Runs with nothing to deliver are left out. Raises TrackingError if a
    run that is wanted has no folder here or is being written.
    """
    end_dead_runs(store)
    runs = {folder: run for folder in running_folders(root) if (run := _find_run(store, folder))}
    for name in wanted:
        chosen = [(folder, run) for folder, run in runs.items() if _is_called(run, name)]
        if not chosen:
            rule = f"is not a run with calls to deliver in {root}"
            raise TrackingError(Problem(name, rule, remedy="leave the name out to deliver all"))
        for folder, run in chosen:
            if not _has_ended(folder, run):
                rule = f"is being written on {run.tags.get(tags.HOST)}, pid {run.tags.get(tags.PID)}"
                raise TrackingError(Problem(run.label, rule, remedy="deliver it when it has ended"))
    chosen = [pair for pair in runs.items() if not wanted or any(_is_called(pair[1], name) for name in wanted)]
    found = [_deliver(store, folder, run) for folder, run in chosen if _has_ended(folder, run)]
    return [delivery for delivery in found if delivery]


def _find_run(store: Store, folder: Path) -> StoredRun | None:
    """Returns the run of a folder, if this store has it. An earlier version wrote no id into the folder."""
    run_id = read_state(folder).get("run")
    condition = f"attributes.run_id = '{run_id}'" if run_id else f"tags.{tags.FOLDER} = '{folder}'"
    with store_errors(store.uri):
        return next(iter(list_runs(store, condition)), None)


def _is_called(run: StoredRun, name: str) -> bool:
    return run.name == name or (len(name) >= SHORTEST and run.id.startswith(name))


def _has_ended(folder: Path, run: StoredRun) -> bool:
    """Whether no process writes the run any more: it ended itself, or its process is gone."""
    record = b""
    with suppress(FileNotFoundError):  # it logged nothing, or it ends just now
        record = (folder / RECORD).read_bytes()
    last = record.rstrip(b"\n").rpartition(b"\n")[2]
    return last.startswith(b'{"kind": "end"') or run.status != "RUNNING" or not _may_run(run.tags)


def _deliver(store: Store, folder: Path, run: StoredRun) -> Delivery | None:
    with suppress(Timeout), FileLock(folder / LOCK, timeout=0):  # another process delivers it
        is_old = not (folder / STATE).exists()
        outbox = Outbox.open(store, folder, run.id)
        before = outbox.count_waiting() + len(outbox.refused)
        if not before:
            return None
        if is_old:
            outbox.append("artifacts", {})  # its record does not say when they were sent
        with long_retries():
            outbox.flush(at_once=True)
        if not outbox.waiting:
            outbox.retry_refused()
        left = outbox.count_waiting() + len(outbox.refused)
        status = fetch_run(store, run.id).status
        refused = tuple(map(str, outbox.refused))
        if not left and (status == "FINISHED" or not is_resumable(folder, run.tags)):
            remove_folder(folder)
        return Delivery(run.name, run.id, status, max(0, before - left), refused, outbox.waiting, folder)
    return None


def is_resumable(folder: Path, facts: Mapping[str, str]) -> bool:
    """Whether a run with these tags has a checkpoint to resume from. A trial runs again from its beginning."""
    return facts.get(tags.KIND, "run") == "run" and (folder / CHECKPOINT_STATE).is_file()


def read_state(folder: Path) -> dict[str, Any]:
    """Returns the state of the outbox in the folder of a run; nothing if it has none."""
    try:
        return dict(json.loads((folder / STATE).read_text(encoding="utf-8")))
    except OSError:
        return {}


def read_points(store: Store, run_id: str) -> dict[tuple[str, int], float]:
    """Returns the metrics of a run by name and step."""
    keys = store.client.get_run(run_id).data.metrics
    histories = (store.client.get_metric_history(run_id, key) for key in keys)
    return {(metric.key, metric.step): metric.value for history in histories for metric in history}


def remove_dead_trials(root: Path) -> None:
    """Deletes the folders of trials below root/running whose process is gone. Nobody can resume a trial.

    A folder with calls that the store has not taken is kept, without its checkpoints.
    """
    for folder in running_folders(root):
        state = read_state(folder)
        facts = state.get("facts", {})
        if facts.get(tags.KIND) not in ("trial", "execution") or _may_run(facts):
            continue
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        try:
            is_taken = (folder / RECORD).stat().st_size == state["sent"] and not state["refused"]
        except FileNotFoundError:  # it logged nothing, or another process removes it just now
            is_taken = True
        if is_taken:
            remove_folder(folder)


def remove_folder(folder: Path) -> None:
    """Deletes the folder of a run, and the folder around it if it is the last one."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # other runs are being written
        folder.parent.rmdir()


def _may_run(facts: Mapping[str, str]) -> bool:
    """Whether the process with these tags lives, or cannot be seen from here."""
    return state_of(facts) != "dead"


def _drop_broken_line(record: Path) -> None:
    """Removes a last line that a killed process has not finished."""
    if record.exists() and not (content := record.read_bytes()).endswith(b"\n"):
        os.truncate(record, content.rfind(b"\n") + 1)


def _reason(error: Exception) -> str:
    return hide(" ".join(str(error).split()))[:300]
