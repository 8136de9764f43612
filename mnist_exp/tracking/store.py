"""The tracking store: found, opened, asked for runs, and cleared of those whose process is gone."""

import contextlib
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from mnist_exp.config.schema import Tracking
from mnist_exp.errors import TrackingError
from mnist_exp.tracking.owner import is_alive
from mnist_exp.tracking.sqlite import DATABASE, check_database, create_database, uri_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
PATIENT = 6  # retries in patiently(), with pauses that double: two minutes
# MLflow's own defaults (7 retries, 120 s each) block a training for minutes when a server is away.
SETTINGS = {
    RETRIES: "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True)
class Store:
    """A tracking store that answered.

    artifacts: the local folder of artifacts, None where a server keeps them; file: number of the local database's file
    when it was opened.
    """

    uri: str
    artifacts: Path | None
    client: "MlflowClient"
    file: int | None = None

    def check_file(self) -> None:
        """Raises OSError where the local database is gone or another: SQLite would write on into the old one."""
        if self.file is not None and _database(self.uri).stat().st_ino != self.file:
            raise OSError(f"{_database(self.uri)} was replaced")

    def experiment_id(self, name: str) -> str:
        """The id of the experiment of this name, created where there is none."""
        from mlflow.exceptions import MlflowException

        with answering(self.uri):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                location = (self.artifacts / quote(name, safe="")).as_uri() if self.artifacts else None
                try:
                    return self.client.create_experiment(name, artifact_location=location)
                except MlflowException:  # another process was faster
                    found = self.client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            raise TrackingError(
                f"the experiment {name!r} was deleted in {self.uri}; restore it in the UI or choose another "
                "with tracking.experiment=NAME"
            )
        return found.experiment_id

    def runs(self, condition: str, experiments: list[str] | None = None) -> "list[Run]":
        """All runs that meet a condition in MLflow's search language, newest first.

        experiments: the ids of those to look in, else all.
        """
        experiments = experiments or [found.experiment_id for found in all_of(self.client.search_experiments)]
        newest = partial(self.client.search_runs, experiments, condition, order_by=["attributes.start_time DESC"])
        return list(all_of(newest))

    def analyze(self) -> None:
        """Lets a local database count its rows: sorting 10,000 runs by a metric took 14 s before and 0.1 s after."""
        if self.file is not None:
            with contextlib.closing(sqlite3.connect(_database(self.uri))) as database:
                database.execute("PRAGMA analysis_limit = 1000")
                database.execute("ANALYZE")

    def end_dead_runs(self) -> None:
        """Sets runs of this host to KILLED that are RUNNING in the store and whose process is gone."""
        with answering(self.uri):
            for run in self.runs(f"attributes.status = 'RUNNING' and tags.host = '{socket.gethostname()}'"):
                if {"pid", "started"} <= run.data.tags.keys() and not is_alive(run.data.tags):
                    self.client.set_tag(run.info.run_id, "ended_by", "its process was gone")
                    self.client.set_terminated(run.info.run_id, "KILLED")


def all_of(ask: Callable[..., Any]) -> Iterator[Any]:
    """What a search of MLflow's finds, page by page."""
    page = ask()
    yield from page
    while page.token:
        page = ask(page_token=page.token)
        yield from page


def locate(uri: str | None, folder: Path) -> str:
    """The store's URI: the one given, else MLFLOW_TRACKING_URI, else SQLite in `folder`. Raises TrackingError."""
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or uri_of(folder / DATABASE)
    parts = urlsplit(chosen)
    if parts.scheme in ("", "file"):
        raise TrackingError(
            f"a tracking store must be a database or a server, but got {chosen!r}; MLflow retired its file store: use "
            f"sqlite:///{Path(parts.path or chosen).resolve() / DATABASE}, http://HOST:5000, or leave tracking.uri out"
        )
    if chosen.startswith("sqlite:///"):
        return uri_of(_database(chosen).resolve())
    return chosen


def local_database(uri: str) -> Path | None:
    """The file of a SQLite store, None of another."""
    return _database(uri) if uri.startswith("sqlite:///") else None


def _database(uri: str) -> Path:
    return Path(unquote(uri.removeprefix("sqlite:///")))


def open_store(uri: str | None, folder: Path) -> Store:
    """The store, created where it is local and missing, and checked. Raises TrackingError where it cannot be used."""
    chosen = locate(uri, folder)
    artifacts, file = None, None
    if chosen.startswith("sqlite:///"):
        database = _database(chosen)
        create_database(database)
        check_database(database)
        artifacts, file = database.parent / "artifacts", database.stat().st_ino
    elif chosen.startswith(("http://", "https://")):
        _check_server(chosen)
    import mlflow

    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with answering(chosen):
        point_mlflow_at(chosen)
        client = mlflow.MlflowClient(chosen)
        if file is not None:
            # MLflow keeps connections for as long as the process lives, also to a file that was deleted since.
            client._tracking_client.store.engine.dispose()
        client.search_experiments(max_results=1)
    return Store(chosen, artifacts, client, file)


def point_mlflow_at(uri: str | None) -> None:
    """Makes a store that of MLflow's own functions.

    MLflow would also set MLFLOW_TRACKING_URI, which would then decide over the next run of this process.
    """
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


@contextmanager
def patiently() -> Iterator[None]:
    """Calls in here wait two minutes for a server that is away; those of a training go on after seconds."""
    before = os.environ.get(RETRIES)
    os.environ[RETRIES] = str(PATIENT)
    try:
        yield
    finally:
        if before is None:
            del os.environ[RETRIES]
        else:
            os.environ[RETRIES] = before


def _check_server(uri: str) -> None:
    """Asks a server once, patiently() more often. Raises TrackingError where it does not answer."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry

    session = requests.Session()
    if os.environ.get(RETRIES) == str(PATIENT):
        session.mount(uri, HTTPAdapter(max_retries=Retry(PATIENT, backoff_factor=2)))
    try:
        answer = session.get(f"{uri.rstrip('/')}/health", timeout=5)
    except requests.RequestException as error:
        raise TrackingError(
            f"{uri}: the tracking server does not answer ({type(error).__name__}); start it, correct tracking.uri, "
            "or leave it out for the local store"
        ) from error
    if answer.status_code >= 500:
        raise TrackingError(
            f"{uri}: the tracking server must be healthy, but answered {answer.status_code}; see its log"
        )


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turns a failing store into a TrackingError that names it."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        raise TrackingError(
            f"{uri}: the tracking store needs its database driver, but: {error}; install it, or leave tracking.uri out"
        ) from error
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(f"{uri}: the tracking store failed: {' '.join(str(error).split())[:500]}") from error


def existing_store(tracking: Tracking) -> "Store":
    """The store these keys name. Raises TrackingError where it is local and not there: nothing is created."""

    uri = locate(tracking.uri, Path(tracking.folder).resolve())
    database = local_database(uri)
    if database and not database.is_file():
        raise TrackingError(f"{uri}: there is no store yet; start a run, or name another with --folder or --uri")
    return store_of(tracking)


def store_of(tracking: Tracking) -> "Store":
    """The store these keys name, opened as open_store does."""

    return open_store(tracking.uri, Path(tracking.folder).resolve())
