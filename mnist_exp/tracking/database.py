"""The local store's SQLite file: created whole, and checked before use."""

import os
import sqlite3
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from mnist_exp.errors import TrackingError


def create_database(database: Path) -> None:
    """Creates a SQLite store unless it is there; twenty at once are fine, and so is a kill at any moment.

    MLflow's own creation breaks for good under both, so it works on another name, under a lock, and is moved into place.
    """
    if database.exists():
        return
    from filelock import FileLock

    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(database.with_suffix(".lock")):
            if not database.exists():
                _create_under(database.with_suffix(".new"), database)
    except OSError as error:
        raise TrackingError(
            f"{database}: the tracking store cannot be created ({error}); choose a folder with tracking.folder=PATH"
        ) from error


def _create_under(temporary: Path, database: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for leftover in temporary.parent.glob(f"{temporary.name}*"):
        leftover.unlink()
    store = SqlAlchemyStore(f"sqlite:///{temporary}", (database.parent / "artifacts").as_uri())
    store.engine.dispose()
    with closing(sqlite3.connect(temporary)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # readers and writers do not wait for each other
    os.replace(temporary, database)


def check_database(database: Path) -> None:
    """Raises TrackingError where the file is damaged, cannot be written, or belongs to another version of MLflow."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or (None,)
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.OperationalError as error:
        raise TrackingError(
            f"{database}: the tracking store must be a SQLite database of MLflow's that can be written, but: {error}; "
            "choose another folder with tracking.folder=PATH"
        ) from error
    except sqlite3.DatabaseError as error:
        raise TrackingError(
            f"{database}: the tracking store is damaged ({error}); put a backup in its place, or move it away"
        ) from error
    if found != (wanted := _get_latest_schema_revision()):
        raise TrackingError(
            f"{database}: the store must have the schema of MLflow {version('mlflow')} ({wanted}), but has {found}; "
            f"install the MLflow that wrote it, or back it up and run: mlflow db upgrade sqlite:///{database}"
        )
