"""A run that is sent to MLflow call by call. What MLflow does not accept stays on disk."""

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

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.secrets import hide
from mnist_exp.tracking import tags
from mnist_exp.tracking.active_run import STATE, ActiveRun, Input, Status, new_folder
from mnist_exp.tracking.find import RESUMABLE, find_run
from mnist_exp.tracking.owner import check_not_running, process_tags
from mnist_exp.tracking.registry import create_model, log_model
from mnist_exp.tracking.store import Store, long_retries, store_errors
from mnist_exp.tracking.stored_run import StoredRun

if TYPE_CHECKING:
    import keras

FAILURES = (MlflowException, SQLAlchemyError, OSError)
PAUSE = 30  # seconds without another try after a call that failed
MAX_WAITING = 10_000  # calls that wait for the store; later calls are kept on disk only
LOGGER = logging.getLogger(__name__)


class MlflowRun(ActiveRun):
    """A run in MLflow. Calls that fail wait in order and are tried again; training does not stop for them."""

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
    def create_run(
        cls, store: Store, root: Path, experiment: str, name: str, more_tags: Mapping[str, str] | None = None
    ) -> Self:
        """Creates a run, which is RUNNING in the store from here on."""
        folder = new_folder(root, name)
        own_tags = {tags.KIND: "run", tags.FOLDER: str(folder), tags.RUN_NAME: name}
        experiment_id = store.experiment_id(experiment)
        with store_errors(store.uri):
            run = store.client.create_run(experiment_id, tags={**process_tags(), **own_tags, **(more_tags or {})})
        return cls(folder, name, store, run.info.run_id)

    @classmethod
    def take_over_run(cls, store: Store, root: Path, run_id: str, name: str) -> Self:
        """Makes this process write a run that another process, the parent of a sweep, has created."""
        folder = new_folder(root, name)
        with long_retries():
            store.set_tags(run_id, {**process_tags(), tags.FOLDER: str(folder)})
        return cls(folder, name, store, run_id)

    @classmethod
    def resume_run(cls, store: Store, wanted: str) -> Self:
        """Resumes an interrupted run. Raises TrackingError if it cannot be resumed."""
        run = find_resumable(store, wanted)
        active = cls(Path(run.tags[tags.FOLDER]), run.name, store, run.id)
        active.digest = run.params.get("dataset.digest")
        (active.artifacts / "traceback.txt").unlink(missing_ok=True)
        store.set_tags(run.id, process_tags())
        with store_errors(store.uri):
            for key in {tags.ERROR, tags.ENDED_BY} & run.tags.keys():
                store.client.delete_tag(run.id, key)
            # Last: a run that is RUNNING under the old process would be taken for dead.
            store.client.update_run(run.id, status="RUNNING")
            for key in run.metrics:
                history = store.client.get_metric_history(run.id, key)
                active._known |= {(key, metric.step): metric.value for metric in history}
        return active

    def log_params(self, values: Mapping[str, Any]) -> None:
        super().log_params(values)
        # With other characters or longer keys MLflow would refuse all of them.
        params = [Param(re.sub(r"[^\w\-. :/]", "_", key)[:250], str(value)) for key, value in values.items()]
        self._send(lambda: self._store.client.log_batch(self.id, params=params))

    def log_tags(self, values: Mapping[str, str]) -> None:
        super().log_tags(values)
        run_tags = [RunTag(key, value) for key, value in values.items()]
        self._send(lambda: self._store.client.log_batch(self.id, tags=run_tags))

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        super().log_metrics(values, step)
        if "train/loss" in values and ("train/loss", step) in self._known:
            return  # the run was killed between the epoch's metrics and its checkpoint
        now = int(time.time() * 1000)
        new = {key: value for key, value in values.items() if self._known.get((key, step)) != value}
        metrics = [Metric(key, value, now, step) for key, value in new.items()]
        self._send(lambda: self._store.client.log_batch(self.id, metrics=metrics))

    def log_input(self, data: Input) -> None:
        super().log_input(data)
        dataset = Dataset(data.name, data.digest[:32], "local", data.source, profile=json.dumps(dict(data.profile)))
        inputs = [DatasetInput(dataset, [InputTag(tags.DATA_CONTEXT, "training")])]
        self._send(lambda: self._store.client.log_inputs(self.id, inputs))

    def log_artifacts(self) -> None:
        self._send(lambda: self._store.client.log_artifacts(self.id, str(self.artifacts)))

    def log_model(self, model: "keras.Model", metadata: Mapping[str, Any]) -> "keras.Model":
        """Logs the model with signature and requirements, and returns it as loaded from the store."""
        ids: list[str] = []
        loaded: list[keras.Model] = []
        self._send(lambda: ids.append(create_model(self._store, self.id)))
        self._send(lambda: loaded.append(log_model(ids[0], model, self.id, metadata)))
        return loaded[0] if loaded else super().log_model(model, metadata)

    def end(self, status: Status, message: str = "") -> None:
        if message:
            self.log_tags({tags.ERROR: message[:4000]})
        self._retry_at = 0.0
        self.hide_log()
        if self.log.exists():
            shutil.copy(self.log, self.artifacts)
        with long_retries():
            self._flush()
            self.log_artifacts()
            self._send(lambda: self._store.client.set_terminated(self.id, status))
        if not self.undelivered and (status == "FINISHED" or not self.resumable):
            super().end(status)

    @property
    def undelivered(self) -> str | None:
        return str(self.folder) if self._waiting or self._overflowed else None

    def _send(self, call: Callable[[], Any]) -> None:
        if len(self._waiting) < MAX_WAITING:
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
            LOGGER.warning("the tracking store failed, %d calls wait: %s", len(self._waiting), hide(str(error)))
            self._retry_at = time.monotonic() + PAUSE


def find_resumable(store: Store, wanted: str) -> StoredRun:
    """Finds a run to resume. Raises TrackingError if it finished, still runs, or has no checkpoint on this machine."""
    run = find_run(store, wanted, among=RESUMABLE)
    check_not_running(run)
    if run.is_finished:
        remedy = "there is nothing to resume; start a new run with more training.epochs"
        raise TrackingError(Problem(run.label, "is finished", remedy=remedy))
    folder = Path(run.tags.get(tags.FOLDER, ""))
    if not (folder / STATE).is_file():
        remedy = "it ended before its first epoch; start a new run"
        raise TrackingError(Problem(run.label, f"has no checkpoint in {folder}", remedy=remedy))
    return run
