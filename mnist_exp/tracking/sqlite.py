"""The local store's SQLite file: created whole, and checked before use."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mnist_exp.errors import TrackingError

DATABASE = "mlflow.db"


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


# Where MLflow 3.17's database keeps absolute places: table and column.
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


@dataclass(frozen=True)
class Missing:
    """A run or model whose files are not where the database says."""

    table: str
    name: str
    place: str


def check_store(folder: Path) -> list[Missing]:
    """What of the store's files is missing. Raises TrackingError where the folder holds no store."""
    with _opened(folder) as database:
        queries = {
            "run": "select name, artifact_uri from runs where lifecycle_stage = 'active' and status = 'FINISHED'",
            "model": "select model_id, artifact_location from logged_models where lifecycle_stage = 'active'",
        }
        return [
            Missing(kind, str(name), place)
            for kind, query in queries.items()
            for name, place in database.execute(query)
            if place and place.startswith(("file:", "/")) and not _path(place).is_dir()
        ]


def move_store(old: Path, new: Path) -> tuple[int, Path]:
    """Makes the database in `new` point to files in `new` where it pointed to `old`; the files are there already.

    Returns the number of places changed and the backup made before. Raises TrackingError where nothing points to `old`
    or the files of a run are not in `new`; the database then is as it was.
    """
    before, after = old.absolute().as_uri(), new.absolute().as_uri()
    with _opened(new) as database:
        backup = new / f"{DATABASE}.{time.strftime('%Y%m%d-%H%M%S')}.backup"
        with contextlib.closing(sqlite3.connect(backup)) as copy:
            database.backup(copy)
        changed = 0
        for table, column in PLACES:
            for was, now in ((before, after), (str(old.absolute()), str(new.absolute()))):
                changed += database.execute(
                    f"update {table} set {column} = ? || substr({column}, ?) "
                    f"where {column} = ? or substr({column}, 1, ?) = ?",
                    (now, len(was) + 1, was, len(was) + 1, f"{was}/"),
                ).rowcount
        if not changed:
            database.rollback()
            backup.unlink()
            raise TrackingError(f"{new / DATABASE}: nothing in it points to {old.absolute()}; see store check")
        database.commit()
    return changed, backup


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    path = folder / DATABASE
    if not path.is_file():
        raise TrackingError(f"{folder} holds no store: {DATABASE} is not there; name the folder that holds it")
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            yield database
    except sqlite3.Error as error:
        raise TrackingError(f"{path}: the database cannot be used: {error}") from error


def _path(place: str) -> Path:
    return Path(unquote(urlsplit(place).path)) if place.startswith("file:") else Path(place)
