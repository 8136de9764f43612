"""Decides what may be removed from a store, and what must stay."""

import os
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mnist_exp.secrets import hide
from mnist_exp.tracking import outbox, tags
from mnist_exp.tracking.active_run import RUNNING, running_folders
from mnist_exp.tracking.find import iterate_pages
from mnist_exp.tracking.owner import has_process, state_of
from mnist_exp.tracking.sqlite import local_folder
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
DELETED, RESUMABLE = "deleted", "can be resumed"


@dataclass(frozen=True)
class Removal:
    """Something to remove. kind: a run, a model, or files without either. place: of its files.

    outside: whether its files lie outside of the store, so that they stay.
    """

    kind: Literal["run", "model", "files"]
    id: str
    name: str = field(compare=False)
    place: str
    outside: bool = False


@dataclass(frozen=True)
class Protection:
    """The runs of a store, as they were when it was read, and why some must not be removed.

    runs: by id, also those that are marked as deleted. deleted: the ids of these. parts: by the id of a run, the runs
    that are parts of it. citing: by the id of a run, the ids of the runs that need it. versions: the registered
    versions by the id of their run.
    """

    store: Store
    runs: Mapping[str, StoredRun]
    deleted: Collection[str]
    parts: Mapping[str, Sequence[StoredRun]]
    citing: Mapping[str, Collection[str]]
    versions: Mapping[str, str]

    @classmethod
    def of(cls, store: Store) -> "Protection":
        """Reads all runs of a store, and its registered versions."""
        from mlflow.entities import ViewType

        with store_errors(store.uri):
            experiments = iterate_pages(partial(store.client.search_experiments, ViewType.ALL))
            inside = [one.experiment_id for one in experiments]
            found = list(iterate_pages(partial(store.client.search_runs, inside, "", ViewType.ALL)))
            registered = list(iterate_pages(store.client.search_model_versions))
        runs = {run.info.run_id: to_stored_run(run) for run in found}
        deleted = {run.info.run_id for run in found if run.info.lifecycle_stage == DELETED}
        parts: dict[str, list[StoredRun]] = defaultdict(list)
        citing: dict[str, set[str]] = defaultdict(set)
        for run in runs.values():
            for whole in {run.tags[key] for key in (tags.PARENT, tags.SWEEP) if key in run.tags}:
                parts[whole].append(run)
            if run.id not in deleted:
                for other in _cited_by(run):
                    citing[other].add(run.id)
        versions = {one.run_id: f"{one.name} version {one.version}" for one in registered if one.run_id}
        return cls(store, runs, deleted, parts, citing, versions)

    def reason(self, run: StoredRun, together: Collection[str], resumable: bool = False) -> str:
        """Returns why a run must stay; empty if it may go.

        together: the ids of the runs that go with it. resumable: whether a run that could be resumed may go.
        """
        if run.id in self.versions:
            return f"is the run of {self.versions[run.id]}"
        if run.status == "RUNNING" and has_process(run):
            return "is running"
        if not resumable and is_resumable(run):
            return RESUMABLE
        if others := [self.runs[other].label for other in self.citing.get(run.id, ()) if other not in together]:
            return f"is needed by {', '.join(sorted(others)[:3])}"
        return ""

    def belonging(self, run: StoredRun) -> list[StoredRun]:
        """Returns a run, and then the runs that are a part of it: the trials of a sweep, the seeds of a trial."""
        found, left = {run.id: run}, [run]
        while left:
            new = [part for part in self.parts.get(left.pop().id, ()) if part.id not in found]
            found |= {part.id: part for part in new}
            left += new
        return list(found.values())

    def finished_sweeps(self) -> list[StoredRun]:
        """Returns the sweeps that came to their end."""
        kept = [run for run in self.runs.values() if run.id not in self.deleted]
        return [run for run in kept if run.tags.get(tags.KIND) == "sweep" and run.is_finished]


def _cited_by(run: StoredRun) -> set[str]:
    """The ids of the runs that a run needs."""
    cited = {run.tags[key] for key in CITING if key in run.tags}
    return (cited | {value for key, value in run.params.items() if key.startswith(CITING_PARAMS)}) - {run.id}


def is_resumable(run: StoredRun) -> bool:
    """Whether a run or a sweep that did not finish can be resumed from here."""
    if run.is_finished:
        return False
    if run.tags.get(tags.KIND) == "sweep":
        return True
    return tags.FOLDER in run.tags and outbox.is_resumable(Path(run.tags[tags.FOLDER]), run.tags)


def removals_of(store: Store, runs: Iterable[StoredRun]) -> list[Removal]:
    """Returns the runs, their models, and their folders on this machine."""
    found = []
    with store_errors(store.uri):
        for run in runs:
            place = store.client.get_run(run.id).info.artifact_uri
            found.append(Removal("run", run.id, run.label, place, is_outside(store, place)))
            found += _models_of(store, run)
            folder = run.tags.get(tags.FOLDER)
            if folder and _is_of(store, run, Path(folder)):
                found.append(Removal("files", "", f"folder of {run.label}", folder))
    return found


def models_below(protection: Protection, sweep: StoredRun, best: Iterable[str]) -> list[Removal]:
    """Returns the models of a sweep's runs that may go. best: the ids of the runs that keep theirs."""
    runs = protection.belonging(sweep)
    inside = {run.id for run in runs}
    needed = {run.model_run_id for run in runs if not inside.issuperset(protection.citing.get(run.id, ()))}
    kept = {*best, *protection.versions, *needed}
    with store_errors(protection.store.uri):
        return [one for run in runs if run.id not in kept for one in _models_of(protection.store, run)]


def find_deleted(protection: Protection) -> list[Removal]:
    """Returns the runs and models that are marked as deleted, with the parts of such runs.

    A run stays, with its parts, if one of them is registered, is running, or is needed by a run outside of them.
    """
    store = protection.store
    wholes = {one: protection.belonging(protection.runs[one]) for one in protection.deleted}
    while True:
        gone = {run.id: run for runs in wholes.values() for run in runs}
        needed = {run.id for run in gone.values() if protection.reason(run, gone, resumable=True)}
        kept = [one for one, runs in wholes.items() if any(run.id in needed for run in runs)]
        if not kept:
            break
        for one in kept:
            del wholes[one]
    with store_errors(store.uri):
        places = {one: store.client.get_run(one).info.artifact_uri for one in gone}
    removals = [Removal("run", one, gone[one].label, place, is_outside(store, place)) for one, place in places.items()]
    for model_id, source, place, stage in _model_rows(store):
        if source in gone or (stage == DELETED and source not in protection.versions):
            removals.append(Removal("model", model_id, model_id, place, is_outside(store, place)))
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
    used = {local_folder(place) for (place,) in _rows(store, "select artifact_location from experiments")}
    # Not by its place alone: the database of a store that was moved or copied names other places.
    found = [folder for folder in folders if folder not in used and _is_abandoned(folder, known)]
    found += [e for folder, e in inside if folder in used and has_id_for_name(e) and e.name not in known]
    found += [entry for entry in models if entry.parent.parent in used and entry.name not in known]
    for folder in running:
        state = outbox.read_state(folder)
        facts = state.get("facts", {})
        is_ours = state.get("store") == hide(store.uri)  # runs of a server have their folders here, too
        if is_ours and state["run"] not in known and state_of(facts) == "dead":
            found.append(folder)
    return [Removal("files", "", str(one.relative_to(store.artifacts.parent)), str(one)) for one in found]


def is_outside(store: Store, place: str) -> bool:
    """Whether files of a local store are not its own, as in a copy whose database names the places of the first store.

    They are its own if its database lies in a folder around them, and no other store between them.
    """
    database = local_database(store.uri)
    if database is None:
        return False
    folder = local_folder(place)
    around = folder.parents if folder else ()
    nearest = next((one for one in around if (one / database.name).is_file()), None)
    return nearest is None or not nearest.samefile(database.parent)


def size_of(removal: Removal) -> int:
    """Returns the bytes of the files that go: in a folder, or at an address that the artifact API lists."""
    if removal.outside:
        return 0
    folder = local_folder(removal.place)
    if folder is not None:
        return sum(os.lstat(Path(parent) / name).st_size for parent, _, names in os.walk(folder) for name in names)
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        return sum(_sizes(get_artifact_repository(removal.place), None))
    except MlflowException:
        return 0


def has_id_for_name(folder: Path) -> bool:
    """Whether a folder is that of a run or of a model."""
    hexadecimal = folder.name.removeprefix(MODEL)
    return len(hexadecimal) == RUN_ID and all(letter in "0123456789abcdef" for letter in hexadecimal)


def _sizes(repository: Any, path: str | None) -> Iterator[int]:
    for file in repository.list_artifacts(path):
        if file.is_dir:
            yield from _sizes(repository, file.path)
        else:
            yield file.file_size or 0


def _is_of(store: Store, run: StoredRun, folder: Path) -> bool:
    """Whether a folder below running/ is that of a run of this store."""
    state = outbox.read_state(folder)
    is_ours = state.get("store") == hide(store.uri) or not is_outside(store, str(folder))
    return folder.parent.name == RUNNING and state.get("run") == run.id and is_ours


def _models_of(store: Store, run: StoredRun) -> list[Removal]:
    """The models of a run that are not marked as deleted."""
    models = store.client.search_logged_models([run.experiment_id], f"source_run_id = '{run.id}'")
    places = {model.model_id: str(model.artifact_location) for model in models}
    return [
        Removal("model", model_id, f"model of {run.label}", place, is_outside(store, place))
        for model_id, place in places.items()
    ]


def _model_rows(store: Store) -> list[tuple[str, str, str, str]]:
    """The models of a local store: id, run, place and stage. A server does not list deleted ones."""
    return _rows(store, "select model_id, source_run_id, artifact_location, lifecycle_stage from logged_models")


def _rows(store: Store, query: str) -> list[Any]:
    database = local_database(store.uri)
    if database is None:
        return []
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def _is_abandoned(folder: Path, known: Collection[str]) -> bool:
    """Whether a folder holds nothing but runs and models, none of which is known."""
    entries = [entry for entry in folder.iterdir() if entry.name != MODELS]
    return all(has_id_for_name(one) and one.name not in known for one in (*entries, *(folder / MODELS).glob("*")))
