"""Removes runs, models and files from a store.

A run or a model is first marked as deleted, then its files are removed, then its rows. If the process is killed in
between, what is left is marked, and the next `store gc` removes it. On a server the marked rows stay until its
administrator removes them.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

from mnist_exp.tracking.active_run import RUNNING
from mnist_exp.tracking.protection import Removal, has_id_for_name
from mnist_exp.tracking.sqlite import local_folder
from mnist_exp.tracking.store import Store, local_database, store_errors


def remove(store: Store, removals: Sequence[Removal]) -> None:
    """Removes these; files outside of the store stay. Each step can be repeated after a kill.

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
            if not one.outside:
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
    folder = local_folder(place)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.parent.name == RUNNING or has_id_for_name(folder.parent):
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


@contextmanager
def _ignoring_missing() -> Iterator[None]:
    """Ignores that something is not there: a call before has removed it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST" and "deleted" not in str(error):
            raise
