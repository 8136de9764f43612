"""A run that is sent to MLflow call by call. What MLflow does not accept stays on disk."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.tracking import tags
from mnist_exp.tracking.active_run import MODEL, STATE, ActiveRun, Input, Kind, Status, new_folder
from mnist_exp.tracking.find import RESUMABLE, find_finished, find_run
from mnist_exp.tracking.outbox import Outbox, is_resumable, read_points, remove_dead_trials, remove_folder
from mnist_exp.tracking.owner import check_not_running, process_tags
from mnist_exp.tracking.registry import load_model, read_metadata, write_model
from mnist_exp.tracking.store import Store, long_retries, store_errors
from mnist_exp.tracking.stored_run import StoredRun

if TYPE_CHECKING:
    import keras


class MlflowRun(ActiveRun):
    """A run in MLflow. Calls that fail wait in the outbox, on disk; training does not stop for them."""

    def __init__(self, name: str, store: Store, outbox: Outbox) -> None:
        super().__init__(outbox.folder, name)
        self.id: str = outbox.run_id
        self.uri = store.uri
        self._store, self._outbox = store, outbox
        self._known: dict[tuple[str, int], float] = {}  # metrics by name and step that the store had when resumed

    @classmethod
    def create_run(
        cls, store: Store, root: Path, experiment: str, name: str, more_tags: Mapping[str, str] | None = None
    ) -> Self:
        """Creates a run, which is RUNNING in the store from here on."""
        remove_dead_trials(root)
        experiment_id = store.experiment_id(experiment)
        folder = new_folder(root, name)
        own_tags = {tags.KIND: "run", tags.FOLDER: str(folder), tags.RUN_NAME: name}
        facts = {**process_tags(), **own_tags, **(more_tags or {})}
        try:
            with store_errors(store.uri):
                run = store.client.create_run(experiment_id, tags=facts)
        except TrackingError:
            remove_folder(folder)
            raise
        return cls(name, store, Outbox(store, run.info.run_id, folder, facts))

    @classmethod
    def take_over_run(cls, store: Store, root: Path, run_id: str, name: str) -> Self:
        """Makes this process write a run that another process, the parent of a sweep, has created."""
        remove_dead_trials(root)
        folder = new_folder(root, name)
        facts = {**process_tags(), tags.FOLDER: str(folder)}
        outbox = Outbox(store, run_id, folder, {**facts, tags.KIND: "trial"})
        with long_retries():
            store.set_tags(run_id, facts)
        return cls(name, store, outbox)

    @classmethod
    def resume_run(cls, store: Store, wanted: str) -> Self:
        """Resumes an interrupted run. Raises TrackingError if it cannot be resumed."""
        run = find_resumable(store, wanted)
        with store_errors(store.uri):
            outbox = Outbox.open(store, Path(run.tags[tags.FOLDER]), run.id)
            outbox.flush()
            outbox.retry_refused()
        active = cls(run.name, store, outbox)
        active.digest = run.params.get("dataset.digest")
        (active.artifacts / "traceback.txt").unlink(missing_ok=True)
        outbox.take({**process_tags(), tags.KIND: "run"})
        store.set_tags(run.id, process_tags())
        with store_errors(store.uri):
            for key in {tags.ERROR, tags.ENDED_BY} & run.tags.keys():
                store.client.delete_tag(run.id, key)
            # Last: a run that is RUNNING under the old process would be taken for dead.
            store.client.update_run(run.id, status="RUNNING")
            active._known = read_points(store, run.id)
        return active

    def log_params(self, values: Mapping[str, Any]) -> None:
        super().log_params({key: str(value) for key, value in values.items()})
        self._outbox.flush()

    def log_tags(self, values: Mapping[str, str]) -> None:
        super().log_tags(values)
        self._outbox.flush()

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        if "train/loss" in values and ("train/loss", step) in self._known:
            return  # the run was killed between the epoch's metrics and its checkpoint
        new = {key: value for key, value in values.items() if self._known.get((key, step)) != value}
        super().log_metrics(new, step)
        self._outbox.flush()

    def load_parent(self, wanted: str) -> tuple[str, "keras.Model", list[str]]:
        parent = find_finished(self._store, wanted).run
        self.log_tags({tags.STARTED_FROM: parent.id})
        classes = read_metadata(self._store.uri, parent.model_run_id)["class_names"]
        return parent.label, load_model(self._store.uri, parent.model_run_id), classes

    def log_input(self, data: Input) -> None:
        super().log_input(data)
        self._outbox.flush()

    def log_artifacts(self) -> None:
        self._write("artifacts", {})
        self._outbox.flush()

    @contextmanager
    def watch_system(self, is_wanted: bool) -> Iterator[None]:
        if not is_wanted:
            yield
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(self.id, resume_logging=True, tracking_uri=self.uri)
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def log_model(self, model: "keras.Model", metadata: Mapping[str, Any]) -> "keras.Model":
        """Logs the model with signature and requirements, and returns it as loaded from its file."""
        loaded = write_model(self.folder / MODEL, model, metadata)
        self._write("model", {})
        self._outbox.flush()
        return loaded

    def end(self, status: Status, message: str = "") -> None:
        if message:
            self._write("tags", {tags.ERROR: message[:4000]})
        self.hide_log()
        if self.log.exists():
            shutil.copy(self.log, self.artifacts)
        with self._outbox.lock():
            self._write("artifacts", {})
            self._write("end", {"status": status})
            with long_retries():
                self._outbox.flush(at_once=True)
            if not self._outbox.waiting:
                self._outbox.retry_refused()
            if not self.resumable:
                shutil.rmtree(self.checkpoints, ignore_errors=True)
            if not self.undelivered and (status == "FINISHED" or not self.resumable):
                super().end(status)

    @property
    def resumable(self) -> bool:
        return is_resumable(self.folder, self._outbox.facts)

    @property
    def undelivered(self) -> str | None:
        return str(self.folder) if self._outbox.waiting or self._outbox.refused else None

    @property
    def refused(self) -> tuple[str, ...]:
        return tuple(map(str, self._outbox.refused))

    def _write(self, kind: Kind, values: Mapping[str, Any]) -> None:
        self._outbox.append(kind, values)


def find_resumable(store: Store, wanted: str) -> StoredRun:
    """Finds a run to resume. Raises TrackingError if it finished, still runs, or has no checkpoint on this machine."""
    run = find_run(store, wanted, among=RESUMABLE)
    check_not_running(run)
    if run.is_finished:
        remedy = "there is nothing to resume; start a new run with more training.epochs"
        raise TrackingError(Problem(run.label, "is finished", remedy=remedy))
    if tags.COPIED_FROM in run.tags:  # its folder may exist here: it is that of the first run
        remedy = "resume it in the store in which it was written"
        raise TrackingError(Problem(run.label, "is a copy, which has no checkpoint", remedy=remedy))
    folder = Path(run.tags.get(tags.FOLDER, ""))
    if not (folder / STATE).is_file():
        remedy = "it ended before its first epoch; start a new run"
        raise TrackingError(Problem(run.label, f"has no checkpoint in {folder}", remedy=remedy))
    return run
