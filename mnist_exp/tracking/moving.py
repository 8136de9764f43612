"""A local store whose folder moved: what its database says of where files lie, checked and put right."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mnist_exp.errors import TrackingError
from mnist_exp.tracking.store import DATABASE

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
