"""Removes runs, models and files from a store.

A run or a model is first marked as deleted, then its files are removed, then its rows. If the process is killed in
between, what is left is marked, and the next `store gc` removes it. On a server the marked rows stay until its
administrator removes them.
"""

import os
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from mnist_exp.secrets import hide
from mnist_exp.tracking import outbox, tags
from mnist_exp.tracking.active_run import RUNNING, running_folders
from mnist_exp.tracking.find import SWEEPS, iterate_pages, list_runs
from mnist_exp.tracking.owner import has_process, state_of
from mnist_exp.tracking.store import Store, local_database, store_errors
from mnist_exp.tracking.stored_run import StoredRun, to_stored_run

# Tags and parameters (keys, or what they begin with) that hold the id of a run.
CITING = (
    tags.STARTED_FROM,
    tags.REPRODUCES,
    tags.REUSED,
    tags.MODEL_RUN,
    tags.TESTED,
    tags.BEST_RUN,
    tags.SWEEP,
    tags.PARENT,
)
CITING_PARAMS = ("training.start_from", "test_set/")
RUN_ID = 32  # hexadecimal digits
MODELS, MODEL = "models", "m-"  # the folder of an experiment's models, and what the name of each begins with


@dataclass(frozen=True)
class Removal:
    """Something to remove. kind: a run, a model, or files without either. place: of its files. size: in bytes."""

    kind: Literal["run", "model", "files"]
    id: str
    name: str
    place: str
    size: int


@dataclass(frozen=True)
class Protection:
    """What must not be removed.

    citing: by the id of a run, the runs that need it, by their ids. versions: the registered versions by the id of
    their run.
    """

    store: Store
    runs: Mapping[str, StoredRun]
    citing: Mapping[str, Collection[str]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store) -> "Protection":
        """Reads all runs of a store, and its registered versions."""
        runs = {run.id: run for run in list_runs(store)}
        citing: dict[str, set[str]] = defaultdict(set)
        for run in runs.values():
            cited = [run.tags[key] for key in CITING if key in run.tags]
            cited += [value for key, value in run.params.items() if key.startswith(CITING_PARAMS)]
            for other in cited:
                if other != run.id:
                    citing[other].add(run.id)
        with store_errors(store.uri):
            found = list(iterate_pages(store.client.search_model_versions))
        return cls(
            store, runs, citing, {one.run_id: f"{one.name} version {one.version}" for one in found if one.run_id}
        )

    def reason(self, run: StoredRun, together: Collection[str], resumable: bool = False) -> str:
        """Returns why a run must stay; empty if it may go.

        together: the ids of the runs that go with it. resumable: whether a run that could be resumed may go.
        """
        if run.id in self.versions:
            return f"is the run of {self.versions[run.id]}"
        if run.status == "RUNNING" and has_process(run):
            return "is running"
        if not resumable and is_resumable(run):
            return "can be resumed"
        if others := [self.runs[other].label for other in self.citing.get(run.id, ()) if other not in together]:
            return f"is needed by {', '.join(sorted(others)[:3])}"
        return ""

    def belonging(self, run: StoredRun) -> list[StoredRun]:
        """Returns a run with the runs that are a part of it: the trials of a sweep, the seeds of a trial."""
        parts = [
            other for other in self.runs.values() if run.id in (other.tags.get(tags.PARENT), other.tags.get(tags.SWEEP))
        ]
        below = [one for part in parts for one in self.belonging(part)]
        return list({one.id: one for one in (run, *below)}.values())


def is_resumable(run: StoredRun) -> bool:
    """Whether a run or a sweep that did not finish can be resumed from here."""
    if run.is_finished:
        return False
    if run.tags.get(tags.KIND) == "sweep":
        return True
    return tags.FOLDER in run.tags and outbox.is_resumable(Path(run.tags[tags.FOLDER]), run.tags)


def removals_of(store: Store, runs: Iterable[StoredRun]) -> list[Removal]:
    """Returns the runs, their models, and their folders on this machine, with their sizes."""
    found = []
    with store_errors(store.uri):
        for run in runs:
            place = store.client.get_run(run.id).info.artifact_uri
            found.append(Removal("run", run.id, run.label, place, size_of(place)))
            found += [_to_removal(model, run.label) for model in _models_of(store, run)]
            folder = Path(run.tags.get(tags.FOLDER, ""))
            if (
                run.tags.get(tags.FOLDER)
                and folder.parent.name == RUNNING
                and outbox.read_state(folder).get("run") == run.id
            ):
                found.append(Removal("files", "", f"folder of {run.label}", str(folder), size_of(str(folder))))
    return found


def models_below(store: Store, protection: Protection, sweep: StoredRun, best: list[str]) -> list[Removal]:
    """Returns the models of a sweep's runs that may go. best: the ids of the runs that keep theirs."""
    condition = f"tags.{tags.SWEEP} = '{sweep.id}'"
    kept = {*best, *protection.versions}
    found = []
    for run in list_runs(store, condition, [sweep.experiment_id]):
        outside = [
            one
            for one in protection.citing.get(run.id, ())
            if protection.runs[one].tags.get(tags.SWEEP) != sweep.id and one != sweep.id
        ]
        if run.id not in kept and not outside:
            found += [_to_removal(model, run.label) for model in _models_of(store, run)]
    return found


def finished_sweeps(store: Store) -> list[StoredRun]:
    """Returns the sweeps that came to their end."""
    with store_errors(store.uri):
        return [run for run in list_runs(store, SWEEPS) if run.is_finished]


def find_deleted(store: Store, protection: Protection) -> list[Removal]:
    """Returns the runs and models that are marked as deleted, with the parts of such runs.

    What a run outside of them needs, or what is registered, is left out.
    """
    from mlflow.entities import ViewType

    with store_errors(store.uri):
        experiments = iterate_pages(partial(store.client.search_experiments, ViewType.ALL))
        inside = [one.experiment_id for one in experiments]
        found = iterate_pages(partial(store.client.search_runs, inside, "", ViewType.DELETED_ONLY))
        deleted = {run.info.run_id: to_stored_run(run) for run in found}
    gone = dict(deleted)
    while more := {
        run.id: run
        for run in protection.runs.values()
        if run.id not in gone and any(run.tags.get(key) in gone for key in (tags.SWEEP, tags.PARENT))
    }:
        gone |= more
    while needed := {
        one
        for one in gone
        if one in protection.versions or any(other not in gone for other in protection.citing.get(one, ()))
    }:
        gone = {one: run for one, run in gone.items() if one not in needed}
    with store_errors(store.uri):
        places = {one: store.client.get_run(one).info.artifact_uri for one in gone}
    removals = [Removal("run", one, gone[one].label, place, size_of(place)) for one, place in places.items()]
    for model_id, source, place, stage in _model_rows(store):
        if stage == "deleted" or source in gone:
            removals.append(Removal("model", model_id, model_id, place, size_of(place)))
    return removals


def find_orphans(store: Store) -> list[Removal]:
    """Returns the files of a local store that belong to no run, model or experiment."""
    if store.artifacts is None or not store.artifacts.is_dir():
        return []
    # The files first: whatever is created after has its row before its files.
    folders = [folder for folder in store.artifacts.iterdir() if folder.is_dir()]
    inside = [(folder, entry) for folder in folders for entry in folder.iterdir() if entry.is_dir()]
    models = [entry for folder in folders if (folder / MODELS).is_dir() for entry in (folder / MODELS).iterdir()]
    running = running_folders(store.artifacts.parent)
    rows = _rows(store, "select run_uuid from runs union select model_id from logged_models")
    known = {row[0] for row in rows}
    used = {_local(place) for (place,) in _rows(store, "select artifact_location from experiments")}
    # Not by its place alone: the database of a store that was moved or copied names other places.
    found = [folder for folder in folders if folder not in used and _is_abandoned(folder, known)]
    found += [e for folder, e in inside if folder in used and _is_own(e.name) and e.name not in known]
    found += [entry for entry in models if entry.parent.parent in used and entry.name not in known]
    for folder in running:
        state = outbox.read_state(folder)
        facts = state.get("facts", {})
        is_ours = state.get("store") == hide(store.uri)  # runs of a server have their folders here, too
        if is_ours and state["run"] not in known and state_of(facts) == "dead":
            found.append(folder)
    return [
        Removal("files", "", str(one.relative_to(store.artifacts.parent)), str(one), size_of(str(one))) for one in found
    ]


def remove(store: Store, removals: Sequence[Removal]) -> None:
    """Removes these. Each step can be repeated after a kill.

    removals: a run stands before the runs that are its parts.
    """
    calls: dict[str, Callable[[str], Any]] = {
        "run": store.client.delete_run,
        "model": store.client.delete_logged_model,
    }
    with store_errors(store.uri):
        for one in removals:
            if one.kind in calls:
                with _ignoring_missing():
                    calls[one.kind](one.id)
        for one in removals:
            remove_files(one.place)
        if local_database(store.uri) is None:
            return
        backend = store.client._tracking_client.store
        rows = {"model": backend._hard_delete_logged_model, "run": backend._hard_delete_run}
        for one in reversed(removals):
            if one.kind in rows:
                with _ignoring_missing():
                    rows[one.kind](one.id)


def remove_files(place: str) -> None:
    """Removes the files of a run or model, on this machine or through the artifact API of a server."""
    folder = _local(place)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.parent.name == RUNNING or _is_own(folder.parent.name):
            with suppress(OSError):  # it holds something else
                folder.parent.rmdir()
        return
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with suppress(MlflowException):  # they are gone
        get_artifact_repository(place).delete_artifacts()


def vacuum(store: Store) -> int:
    """Returns the pages of a local database that are free to the disk, and the bytes that this brings."""
    database = local_database(store.uri)
    if database is None:
        return 0
    before = database.stat().st_size
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM")
    return before - database.stat().st_size


def size_of(place: str) -> int:
    """Returns the bytes of all files below a place: a folder, or an address that the artifact API lists."""
    folder = _local(place)
    if folder is not None:
        return sum(os.lstat(Path(parent) / name).st_size for parent, _, names in os.walk(folder) for name in names)
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        repository = get_artifact_repository(place)
        return sum(_sizes(repository, None))
    except MlflowException:
        return 0


def _sizes(repository: Any, path: str | None) -> Iterator[int]:
    for file in repository.list_artifacts(path):
        if file.is_dir:
            yield from _sizes(repository, file.path)
        else:
            yield file.file_size or 0


@contextmanager
def _ignoring_missing() -> Iterator[None]:
    """Ignores that something is not there: a call before has removed it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST" and "deleted" not in str(error):
            raise


def _models_of(store: Store, run: StoredRun) -> list[Any]:
    return list(store.client.search_logged_models([run.experiment_id], f"source_run_id = '{run.id}'"))


def _to_removal(model: Any, label: str) -> Removal:
    place = str(model.artifact_location)
    return Removal("model", model.model_id, f"model of {label}", place, size_of(place))


def _model_rows(store: Store) -> list[tuple[str, str, str, str]]:
    """The models of a local store: id, run, place and stage. A server does not list deleted ones."""
    return _rows(store, "select model_id, source_run_id, artifact_location, lifecycle_stage from logged_models")


def _rows(store: Store, query: str) -> list[Any]:
    database = local_database(store.uri)
    if database is None:
        return []
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def _local(place: str) -> Path | None:
    """The folder of a place on this machine; None if it is an address."""
    if place.startswith("file:"):
        return Path(unquote(urlsplit(place).path))
    return Path(place) if place.startswith("/") else None


def _is_abandoned(folder: Path, known: Collection[str]) -> bool:
    """Whether a folder holds nothing but runs and models, none of which is known."""
    entries = [entry for entry in folder.iterdir() if entry.name != MODELS]
    return all(_is_own(one.name) and one.name not in known for one in (*entries, *(folder / MODELS).glob("*")))


def _is_own(name: str) -> bool:
    """Whether a folder is that of a run or of a model."""
    hexadecimal = name.removeprefix(MODEL)
    return len(hexadecimal) == RUN_ID and all(letter in "0123456789abcdef" for letter in hexadecimal)
