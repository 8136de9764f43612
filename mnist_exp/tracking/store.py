"""The tracking store: where it is, how it is opened, and how its failures become TrackingErrors."""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from mnist_exp.config.recorded import ExecutionWhitelist
from mnist_exp.config.schema import Tracking
from mnist_exp.errors import Problem, TrackingError
from mnist_exp.secrets import hide, move_credentials, with_credentials
from mnist_exp.tracking.sqlite import (
    DATABASE,
    check_database,
    create_database,
    finish_transactions,
    local_folder,
    uri_of,
    warn_of_network_disk,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
LONGEST = 200  # characters in the name of a folder
LONG_RETRIES = 6  # with pauses that double: two minutes
# MLflow's own defaults (7 retries, 120 s each) block a training for minutes if a server is away.
SETTINGS = {
    RETRIES: "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True)
class Store:
    """A tracking store that answered.

    artifacts: the local folder of artifacts; None if a server keeps them.
    file: the number of the local database's file when it was opened. whitelist: what its configs may run.
    """

    uri: str
    artifacts: Path | None
    client: "MlflowClient"
    file: int | None = None
    whitelist: ExecutionWhitelist = field(default_factory=ExecutionWhitelist)

    @property
    def address(self) -> str:
        """The URI with the credentials that another machine needs. Not to be recorded or printed."""
        return with_credentials(self.uri)

    def check_file(self) -> None:
        """Raises OSError if the local database was deleted or replaced: SQLite would still write to the old one."""
        if (database := local_database(self.uri)) and database.stat().st_ino != self.file:
            raise OSError(f"{database} was replaced")

    def experiment_id(self, name: str, new_tags: Mapping[str, str] | None = None) -> str:
        """Returns the id of the experiment with this name. Creates it, with these tags, if there is none."""
        from mlflow.exceptions import MlflowException

        with store_errors(self.uri):
            experiment = self.client.get_experiment_by_name(name)
            if experiment is None:
                location = (self.artifacts / _folder_name(name)).as_uri() if self.artifacts else None
                with suppress(MlflowException):  # another process was faster
                    self.client.create_experiment(name, artifact_location=location, tags=dict(new_tags or {}))
                experiment = self.client.get_experiment_by_name(name)
        if experiment is None or experiment.lifecycle_stage != "active":
            rule = f"was deleted in {hide(self.uri)}"
            remedy = "restore it in the UI or choose another with tracking.experiment=NAME"
            raise TrackingError(Problem(f"experiment {name!r}", rule, remedy=remedy))
        _check_location(name, experiment.artifact_location)
        return experiment.experiment_id

    def set_tags(self, run_id: str, values: Mapping[str, str]) -> None:
        """Sets tags of a run in one request."""
        self.log(run_id, {}, 0, values)

    def log(
        self, run_id: str, metrics: Mapping[str, float], step: int, facts: Mapping[str, str] | None = None,
        when: float | None = None,
    ) -> None:  # fmt: skip
        """Logs metrics and tags of a run in one request. when: the time of the metrics, as `time.time()`; else now."""
        from mlflow.entities import Metric, RunTag

        milliseconds = round((time.time() if when is None else when) * 1000)
        points = [Metric(key, value, milliseconds, step) for key, value in metrics.items()]
        run_tags = [RunTag(key, value) for key, value in (facts or {}).items()]
        with store_errors(self.uri):
            self.client.log_batch(run_id, points, tags=run_tags)

    def analyze(self) -> None:
        """Lets a local database count its rows: sorting 10,000 runs by a metric took 14 s before and 0.1 s after."""
        if database := local_database(self.uri):
            with closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA analysis_limit = 1000")
                connection.execute("ANALYZE")


def locate(uri: str | None, folder: Path) -> str:
    """Returns the URI of the store: the one given, else MLFLOW_TRACKING_URI, else the SQLite file in `folder`.

    The credentials of a server move from its address to the environment of this process.
    Raises TrackingError if it is a folder: MLflow retired that kind of store.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or uri_of(folder / DATABASE)
    chosen = move_credentials(chosen)
    parts = urlsplit(chosen)
    if parts.scheme in ("", "file"):
        key = "tracking.uri" if uri else "MLFLOW_TRACKING_URI"
        sqlite = uri_of(Path(parts.path or chosen).resolve() / DATABASE)
        remedy = f"MLflow retired its file store: use {sqlite}, http://HOST:5000, or leave {key} out"
        raise TrackingError(Problem(key, "must be a database or a server", chosen, remedy))
    database = local_database(chosen)
    return uri_of(database.resolve()) if database else chosen


def local_database(uri: str) -> Path | None:
    """Returns the file of a SQLite store, None for any other store."""
    return Path(unquote(uri.removeprefix("sqlite:///"))) if uri.startswith("sqlite:///") else None


def open_store(uri: str | None, folder: Path) -> Store:
    """Opens and checks the store; creates it if it is local and missing. Raises TrackingError if it cannot be used."""
    chosen = locate(uri, folder)
    artifacts, file = None, None
    if database := local_database(chosen):
        warn_of_network_disk(database)
        create_database(database)
        check_database(database)
        artifacts, file = database.parent / "artifacts", database.stat().st_ino
    elif chosen.startswith(("http://", "https://")):
        _check_server(chosen)
    import mlflow

    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with store_errors(chosen):
        point_mlflow_at(chosen)
        client = mlflow.MlflowClient(chosen)
        if file is not None:
            # MLflow keeps connections for as long as the process lives, also to a file that was deleted since.
            client._tracking_client.store.engine.dispose()
            for part in (client._tracking_client, client._get_registry_client()):
                finish_transactions(part.store)
        client.search_experiments(max_results=1)
    return Store(chosen, artifacts, client, file)


def connect(settings: Tracking) -> Store:
    """Opens the store that these settings name, as `open_store` does."""
    folder = Path(settings.folder).resolve()
    store = open_store(settings.uri, folder)
    closed = (folder, store.artifacts.resolve()) if store.artifacts else (folder,)
    return replace(store, whitelist=ExecutionWhitelist(tuple(settings.execution_whitelist), closed))


def connect_existing(settings: Tracking) -> Store:
    """Opens the store that these settings name. Raises TrackingError if it is local and missing; creates nothing."""
    uri = locate(settings.uri, Path(settings.folder).resolve())
    database = local_database(uri)
    if database and not database.is_file():
        remedy = "start a run, or name another store with --folder or --uri"
        raise TrackingError(Problem(str(database), "does not exist", remedy=remedy))
    return connect(settings)


def point_mlflow_at(uri: str | None) -> None:
    """Makes MLflow's own functions use this store.

    MLflow would also set MLFLOW_TRACKING_URI, which would then decide over the next run of this process.
    """
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


@contextmanager
def long_retries() -> Iterator[None]:
    """Lets calls wait two minutes for a server that is away. Outside this block they give up after seconds."""
    before = os.environ.get(RETRIES, SETTINGS[RETRIES])  # a store opened in the block sets no default
    os.environ[RETRIES] = str(LONG_RETRIES)
    try:
        yield
    finally:
        os.environ[RETRIES] = before


def _folder_name(experiment: str) -> str:
    """A name for the folder of an experiment. A file system allows 255 bytes, and a letter may take 12 of them here."""
    name = quote(experiment, safe="")
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 17]}-{sha256(name.encode()).hexdigest()[:16]}"


def _check_location(experiment: str, location: str) -> None:
    """Raises TrackingError if the folder of an experiment on this machine cannot be made, before a run needs it."""
    if folder := local_folder(location):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            rule = f"must be an experiment with a folder that can be made ({error.strerror})"
            remedy = "choose another with tracking.experiment=NAME"
            raise TrackingError(Problem("tracking.experiment", rule, experiment, remedy)) from error


def _check_server(uri: str) -> None:
    """Asks a server once, within `long_retries` more often. Raises TrackingError if it does not answer."""
    import requests
    from urllib3 import Retry

    session = requests.Session()
    if os.environ.get(RETRIES) == str(LONG_RETRIES):
        session.mount(uri, requests.adapters.HTTPAdapter(max_retries=Retry(LONG_RETRIES, backoff_factor=2)))
    server = hide(uri)
    try:
        status = session.get(f"{uri.rstrip('/')}/health", timeout=5).status_code
    except requests.RequestException as error:
        remedy = "start the server, correct tracking.uri, or leave it out for the local store"
        raise TrackingError(Problem(server, f"does not answer ({type(error).__name__})", remedy=remedy)) from error
    if status >= 500:
        raise TrackingError(Problem(server, "must answer with a status below 500", status, "see the server's log"))


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turns the failure of a store into a TrackingError that names it."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        rule, remedy = f"needs its database driver ({error})", "install it, or leave tracking.uri out"
        raise TrackingError(Problem(hide(uri), rule, remedy=remedy)) from error
    except (MlflowException, SQLAlchemyError, OSError) as error:
        text = hide(" ".join(str(error).split()))[:500]
        raise TrackingError(Problem(hide(uri), f"failed: {text}")) from error
