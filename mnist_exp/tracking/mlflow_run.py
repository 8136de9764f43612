"""A record that is also sent to MLflow, call by call, and kept on disk where MLflow does not take it."""

import json
import logging
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from mnist_exp.errors import TrackingError
from mnist_exp.tracking.active_run import STATE, Input, Record, Status, new_folder
from mnist_exp.tracking.find import RESUMABLE, find_run
from mnist_exp.tracking.owner import process_tags
from mnist_exp.tracking.registry import _log_model, _name_model
from mnist_exp.tracking.store import Store, answering, patiently

if TYPE_CHECKING:
    import keras
    from mlflow.entities import Run

FAILURES = (MlflowException, SQLAlchemyError, OSError)
PAUSE = 30  # seconds without another try after a call that failed
MOST = 10_000  # calls that may wait; what comes after them is kept on disk alone
LOGGER = logging.getLogger(__name__)


class MlflowRecord(Record):
    """A run in MLflow. Calls that fail wait in order and are tried again; training never stops for them."""

    def __init__(self, folder: Path, name: str, store: Store, run_id: str) -> None:
        super().__init__(folder, name)
        self.id: str = run_id
        self.uri = store.uri
        self._store = store
        self._waiting: deque[Callable[[], Any]] = deque()
        self._overflowed = False
        self._retry_at = 0.0
        self._known: dict[tuple[str, int], float] = {}  # metrics by name and step that the store had when resumed

    @classmethod
    def create_in(
        cls, store: Store, root: Path, experiment: str, name: str, tags: Mapping[str, str] | None = None
    ) -> Self:
        """A record of a new run, RUNNING in the store from here on; tags: beside its own."""
        folder = new_folder(root, name)
        tags = {**process_tags(), "kind": "run", "folder": str(folder), "mlflow.runName": name, **(tags or {})}
        experiment_id = store.experiment_id(experiment)
        with answering(store.uri):
            run = store.client.create_run(experiment_id, tags=tags)
        return cls(folder, name, store, run.info.run_id)

    @classmethod
    def adopt(cls, store: Store, root: Path, run_id: str, name: str) -> Self:
        """The record of a run that the parent of a sweep created, from here on of this process."""
        folder = new_folder(root, name)
        with patiently(), answering(store.uri):
            for key, value in {**process_tags(), "folder": str(folder)}.items():
                store.client.set_tag(run_id, key, value)
        return cls(folder, name, store, run_id)

    @classmethod
    def resume(cls, store: Store, wanted: str) -> Self:
        """The record of a run that was interrupted. Raises TrackingError where it cannot go on."""
        run = find_run(store, wanted, among=RESUMABLE)
        check_resumable(run)
        record = cls(Path(run.data.tags["folder"]), str(run.info.run_name), store, run.info.run_id)
        record.digest = run.data.params.get("dataset.digest")
        (record.artifacts / "traceback.txt").unlink(missing_ok=True)
        with answering(store.uri):
            for key, value in process_tags().items():
                store.client.set_tag(record.id, key, value)
            for key in {"error", "ended_by"} & run.data.tags.keys():
                store.client.delete_tag(record.id, key)
            # Last: a run that is RUNNING under the old process would be taken for dead.
            store.client.update_run(record.id, status="RUNNING")
            for key in run.data.metrics:
                history = store.client.get_metric_history(record.id, key)
                record._known |= {(key, metric.step): metric.value for metric in history}
        return record

    def params(self, values: Mapping[str, Any]) -> None:
        super().params(values)
        # Other characters than these, and longer keys, would make MLflow refuse them all.
        sent = [Param(re.sub(r"[^\w\-. :/]", "_", key)[:250], str(value)) for key, value in values.items()]
        self._send(lambda: self._store.client.log_batch(self.id, params=sent))

    def tags(self, values: Mapping[str, str]) -> None:
        super().tags(values)
        sent = [RunTag(key, value) for key, value in values.items()]
        self._send(lambda: self._store.client.log_batch(self.id, tags=sent))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        super().metrics(values, step)
        if "train/loss" in values and ("train/loss", step) in self._known:
            return  # the kill came between the epoch's metrics and its checkpoint
        now = int(time.time() * 1000)
        new = {key: value for key, value in values.items() if self._known.get((key, step)) != value}
        sent = [Metric(key, value, now, step) for key, value in new.items()]
        self._send(lambda: self._store.client.log_batch(self.id, metrics=sent))

    def input(self, data: Input) -> None:
        super().input(data)
        dataset = Dataset(data.name, data.digest[:32], "local", data.source, profile=json.dumps(dict(data.profile)))
        given = DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
        self._send(lambda: self._store.client.log_inputs(self.id, [given]))

    def publish(self) -> None:
        self._send(lambda: self._store.client.log_artifacts(self.id, str(self.artifacts)))

    def model(self, model: "keras.Model", metadata: Mapping[str, Any]) -> "keras.Model":
        """Logs the model, with its signature and explicit requirements, and loads it again from the store."""
        named: list[str] = []
        loaded: list[keras.Model] = []
        self._send(lambda: named.append(_name_model(self._store, self.id)))
        self._send(lambda: loaded.append(_log_model(named[0], model, self.id, metadata)))
        return loaded[0] if loaded else super().model(model, metadata)

    def end(self, status: Status, message: str = "") -> None:
        if message:
            self.tags({"error": message[:4000]})
        self._retry_at = 0.0
        if self.log.exists():
            shutil.copy(self.log, self.artifacts)
        with patiently():
            self._flush()
            self.publish()
            self._send(lambda: self._store.client.set_terminated(self.id, status))
        if not self.trouble and (status == "FINISHED" or not self.resumable):
            super().end(status)

    @property
    def trouble(self) -> str | None:
        if self._waiting or self._overflowed:
            return f"tracking failed on the way; everything the run logged is kept in {self.folder}"
        return None

    def _send(self, call: Callable[[], Any]) -> None:
        if len(self._waiting) < MOST:
            self._waiting.append(call)
        else:
            self._overflowed = True
        self._flush()

    def _flush(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        try:
            while self._waiting:
                self._store.check_file()
                self._waiting[0]()
                self._waiting.popleft()
        except FAILURES as error:
            LOGGER.warning("the tracking store failed, %d calls wait: %s", len(self._waiting), error)
            self._retry_at = time.monotonic() + PAUSE


def check_resumable(run: "Run") -> None:
    """Raises TrackingError for a run that finished, still runs, or left no checkpoint on this machine."""
    name = f"{run.info.run_name} ({run.info.run_id[:8]})"
    if run.info.status == "RUNNING":
        raise TrackingError(
            f"{name} is still running on {run.data.tags.get('host')}, pid {run.data.tags.get('pid')}; end it first"
        )
    if run.info.status == "FINISHED":
        raise TrackingError(f"{name} finished; there is nothing to resume. Start a new run with more training.epochs")
    folder = Path(run.data.tags.get("folder", ""))
    if not (folder / STATE).is_file():
        raise TrackingError(f"{name} left no checkpoint in {folder}: it ended before its first epoch; start it anew")
