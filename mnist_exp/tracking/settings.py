"""The keys of `tracking`, and what kind of record they ask for. MLflow loads only where it is wanted."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Len

from mnist_exp.errors import TrackingError
from mnist_exp.tracking.record import Record

if TYPE_CHECKING:
    import keras

    from mnist_exp.tracking.store import Store


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs are recorded; conf/tracking/mlflow.yaml explains each key."""

    enabled: bool
    uri: str | None
    experiment: Annotated[str, Len(1, 200)]
    folder: Annotated[str, Len(1)]


def start(tracking: Tracking, name: str, resume: str | None = None) -> Record:
    """Opens the record of a new run, or that of the run to resume.

    Raises TrackingError before anything is trained where the store cannot be used.
    """
    folder = Path(tracking.folder).resolve()
    if not tracking.enabled:
        return Record.create(folder, name)
    from mnist_exp.tracking.mlflow_record import MlflowRecord

    store = store_of(tracking)
    store.end_dead_runs()
    if resume is not None:
        return MlflowRecord.resume(store, resume)
    return MlflowRecord.create_in(store, folder, tracking.experiment, name)


def recorded_config(tracking: Tracking, wanted: str) -> tuple[str, str, dict[str, str]]:
    """Id, YAML config and parameters of a run to resume. Raises TrackingError where it is unknown or cannot go on."""
    from mnist_exp.tracking.lookup import RESUMABLE, find_run
    from mnist_exp.tracking.mlflow_record import check_resumable

    store = store_of(tracking)
    store.end_dead_runs()
    run = find_run(store, wanted, among=RESUMABLE)
    check_resumable(run)
    config = Path(run.data.tags["folder"], "artifacts", "config.yaml").read_text(encoding="utf-8")
    return run.info.run_id, config, run.data.params


def existing_store(tracking: Tracking) -> "Store":
    """The store these keys name. Raises TrackingError where it is local and not there: nothing is created."""
    from mnist_exp.tracking.store import local_database, locate

    uri = locate(tracking.uri, Path(tracking.folder).resolve())
    database = local_database(uri)
    if database and not database.is_file():
        raise TrackingError(f"{uri}: there is no store yet; start a run, or name another with --folder or --uri")
    return store_of(tracking)


def store_of(tracking: Tracking) -> "Store":
    """The store these keys name, opened as open_store does."""
    from mnist_exp.tracking.store import open_store

    return open_store(tracking.uri, Path(tracking.folder).resolve())


def load_model(uri: str | None, run_id: str) -> "keras.Model":
    """The model a run logged."""
    import mlflow.keras

    from mnist_exp.tracking.store import point_mlflow_at

    point_mlflow_at(uri)
    return mlflow.keras.load_model(f"runs:/{run_id}/model")
