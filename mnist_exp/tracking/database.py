"""The local store's SQLite file: created whole, and checked before use."""

import os
import sqlite3
import time
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from mnist_exp.errors import TrackingError


def create_database(database: Path) -> None:
    """Creates a SQLite store unless it is there; twenty at once are fine, and so is a kill at any moment.

    MLflow's own creation breaks for good under both, so it works on another name, under a lock, and is then moved.
    """
    if database.exists():
        return
    from filelock import FileLock

    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(database.with_suffix(".lock")):
            if not database.exists():
                _create_under(database.with_suffix(f".new-{time.time_ns()}"), database)
    except OSError as error:
        raise TrackingError(
            f"{database}: the tracking store cannot be created ({error}); choose a folder with tracking.folder=PATH"
        ) from error


def _create_under(temporary: Path, database: Path) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.exc import SQLAlchemyError

    for leftover in temporary.parent.glob(f"{temporary.stem}.new-*"):
        leftover.unlink()
    try:
        store = SqlAlchemyStore(uri_of(temporary), (database.parent / "artifacts").as_uri())
        store.engine.dispose()
        with closing(sqlite3.connect(temporary)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # readers and writers do not wait for each other
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:  # a full disk is told to SQLite alone
        raise OSError(" ".join(str(error).split())[:200]) from error
    os.replace(temporary, database)


def uri_of(database: Path) -> str:
    """The URI of a SQLite file; what SQLAlchemy would take for an escape or the end of the path is escaped."""
    return f"sqlite:///{str(database).replace('%', '%25').replace('?', '%3F')}"


def check_database(database: Path) -> None:
    """Raises TrackingError where the file is damaged, cannot be written, or belongs to another version of MLflow."""
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or (None,)
            # A lock alone shows no right to write.
            connection.execute("UPDATE alembic_version SET version_num = version_num")
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
    from mlflow.store.db.utils import _get_latest_schema_revision

    if found != (wanted := _get_latest_schema_revision()):
        raise TrackingError(
            f"{database}: the store must have the schema of MLflow {version('mlflow')} ({wanted}), but has {found}; "
            f"install the MLflow that wrote it, or back it up and run: mlflow db upgrade {uri_of(database)}"
        )
