"""The SQLite file of a local store: created, checked before use, and repaired after its folder moved."""

import functools
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil

from mnist_exp.errors import Problem, TrackingError, sentence
from mnist_exp.log import warn_user
from mnist_exp.signals import deferred
from mnist_exp.tracking import tags

DATABASE = "mlflow.db"
NETWORK = ("nfs", "cifs", "smb", "afs", "9p", "lustre", "ceph", "glusterfs", "gpfs", "beegfs", "webdav", "fuse.sshfs")
PATIENCE = 30  # seconds for which to wait for other writers
OTHER_FOLDER = "choose another folder with tracking.folder=PATH"


def create_database(database: Path) -> None:
    """Creates a SQLite store unless it exists. Many processes may call this at once, and each may be killed.

    MLflow's own creation breaks for good under both. It therefore works under another name and a lock; the file is then
    moved into place.
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
        raise TrackingError(Problem(str(database), f"cannot be created ({error})", remedy=OTHER_FOLDER)) from error


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
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:  # SQLite reports a full disk, too
        raise OSError(" ".join(str(error).split())[:200]) from error
    os.replace(temporary, database)


@functools.cache
def warn_of_network_disk(database: Path) -> None:
    """Warns once if the file lies on a network disk: SQLite's locks and its journal need a disk of one machine."""
    if kind := find_network_disk(database):
        rule = f"lies on a network disk ({kind}), where SQLite may lose what several machines write at once"
        warn_user(sentence(Problem(str(database), rule, remedy="start an MLflow server, see docs/team.md")))


def find_network_disk(database: Path) -> str | None:
    """Returns the kind of network file system that the file lies on, such as nfs4; None if it lies on a local disk."""
    here = database.resolve()
    try:
        disks = [disk for disk in psutil.disk_partitions(all=True) if here.is_relative_to(disk.mountpoint)]
    except OSError:  # the list of disks cannot be read
        return None
    kind = max(disks, key=lambda disk: len(disk.mountpoint)).fstype.lower() if disks else ""
    return kind if kind.startswith(NETWORK) or kind.removeprefix("fuse.").startswith(NETWORK) else None


def finish_transactions(store: Any) -> None:
    """Makes signals wait for the end of each transaction of one of MLflow's stores.

    One that is interrupted within SQLAlchemy's own work stays open, and locks the file against the record of its end.
    """
    begin = store.ManagedSessionMaker
    if not isinstance(begin, _Whole):  # MLflow keeps its stores for as long as the process lives
        store.ManagedSessionMaker = _Whole(begin)


@dataclass(frozen=True)
class _Whole:
    begin: Callable[..., AbstractContextManager[Any]]

    @contextmanager
    def __call__(self, **keys: Any) -> Iterator[Any]:
        with deferred(), self.begin(**keys) as session:
            yield session


def uri_of(database: Path) -> str:
    """Returns the URI of a SQLite file. Characters that SQLAlchemy would not take as part of the path are escaped."""
    return f"sqlite:///{str(database).replace('%', '%25').replace('?', '%3F')}"


def check_database(database: Path) -> None:
    """Raises TrackingError if the file is damaged, cannot be written, or belongs to another version of MLflow."""
    try:
        with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
            (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or (None,)
            # A lock does not show that the file can be written.
            connection.execute("UPDATE alembic_version SET version_num = version_num")
            connection.rollback()
    except sqlite3.OperationalError as error:
        # The first byte of the code is its kind; an error of the module itself has none.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            rule = f"has been locked by another process for {PATIENCE} s"
            remedy = "let that process go on, if it is suspended, or end it"
            raise TrackingError(Problem(str(database), rule, remedy=remedy)) from error
        rule = f"must be a SQLite database of MLflow that can be written ({error})"
        raise TrackingError(Problem(str(database), rule, remedy=OTHER_FOLDER)) from error
    except sqlite3.DatabaseError as error:
        remedy = "put a backup in its place, or move it away"
        raise TrackingError(Problem(str(database), f"is damaged ({error})", remedy=remedy)) from error
    from mlflow.store.db.utils import _get_latest_schema_revision

    if found != (wanted := _get_latest_schema_revision()):
        rule = f"must have the schema of MLflow {version('mlflow')}, {wanted}"
        remedy = f"install the MLflow that wrote it, or back it up and run: mlflow db upgrade {uri_of(database)}"
        raise TrackingError(Problem(str(database), rule, found, remedy))


# The columns that hold absolute paths: table and column of MLflow 3.17's database, and which rows do.
PLACES = (
    ("experiments", "artifact_location", "true"),
    ("runs", "artifact_uri", "true"),
    ("logged_models", "artifact_location", "true"),
    ("model_versions", "storage_location", "true"),
    ("model_versions", "source", "true"),
    ("tags", "value", f"key = '{tags.FOLDER}'"),  # where an interrupted run has its checkpoint
)


@dataclass(frozen=True)
class Missing:
    """A run or model whose files are not at the place in the database. kind: run or model."""

    kind: str
    name: str
    place: str


def check_store(folder: Path) -> list[Missing]:
    """Returns the finished runs and the models whose files are missing. Raises TrackingError if there is no store."""
    with _opened(folder) as database:
        queries = {
            "run": "select name, artifact_uri from runs where lifecycle_stage = 'active' and status = 'FINISHED'",
            "model": "select model_id, artifact_location from logged_models where lifecycle_stage = 'active'",
        }
        return [
            Missing(kind, str(name), place)
            for kind, query in queries.items()
            for name, place in database.execute(query)
            if place and (lying := local_folder(place)) and not lying.is_dir()
        ]


def move_store(old: Path, new: Path) -> tuple[int, Path]:
    """Replaces paths below `old` in the database of `new` by paths below `new`; the files were moved already.

    Returns the number of paths changed and the backup made before. Raises TrackingError, with the database unchanged,
    if no path is below `old`.
    """
    before, after = old.absolute().as_uri(), new.absolute().as_uri()
    with _opened(new) as database:
        backup = new / f"{DATABASE}.{time.strftime('%Y%m%d-%H%M%S')}.backup"
        with closing(sqlite3.connect(backup)) as copy:
            database.backup(copy)
        changed = 0
        for table, column, rows in PLACES:
            for was, now in ((before, after), (str(old.absolute()), str(new.absolute()))):
                changed += database.execute(
                    f"update {table} set {column} = ? || substr({column}, ?) "
                    f"where {rows} and ({column} = ? or substr({column}, 1, ?) = ?)",
                    (now, len(was) + 1, was, len(was) + 1, f"{was}/"),
                ).rowcount
        if not changed:
            database.rollback()
            backup.unlink()
            remedy = f"see what is missing with: python -m mnist_exp store check {new}"
            raise TrackingError(Problem(str(new / DATABASE), f"does not point to {old.absolute()}", remedy=remedy))
        database.commit()
    return changed, backup


def count_points(database: Path) -> dict[str, int]:
    """Returns the number of logged metrics, every step counted, of each run."""
    with closing(sqlite3.connect(database)) as connection:
        return dict(connection.execute("select run_uuid, count(*) from metrics group by run_uuid"))


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    path = folder / DATABASE
    if not path.is_file():
        raise TrackingError(Problem(str(folder), "holds no store", remedy=f"name the folder that holds {DATABASE}"))
    try:
        with closing(sqlite3.connect(path)) as database:
            yield database
    except sqlite3.Error as error:
        raise TrackingError(Problem(str(path), f"cannot be read ({error})")) from error


def local_folder(place: str) -> Path | None:
    """Returns the folder on this machine that a place in the database names; None if it names an address."""
    if not place.startswith(("file:", "/")):
        return None
    return Path(os.path.normpath(unquote(urlsplit(place).path) if place.startswith("file:") else place))
