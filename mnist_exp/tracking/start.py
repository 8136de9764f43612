"""Opens the record of a run."""

from pathlib import Path

from mnist_exp.config.schema import Tracking
from mnist_exp.tracking.active_run import Record
from mnist_exp.tracking.store import store_of


def start(tracking: Tracking, name: str, resume: str | None = None) -> Record:
    """Opens the record of a new run, or that of the run to resume.

    Raises TrackingError before anything is trained where the store cannot be used.
    """
    folder = Path(tracking.folder).resolve()
    if not tracking.enabled:
        return Record.create(folder, name)
    from mnist_exp.tracking.mlflow_run import MlflowRecord

    store = store_of(tracking)
    store.end_dead_runs()
    if resume is not None:
        return MlflowRecord.resume(store, resume)
    return MlflowRecord.create_in(store, folder, tracking.experiment, name)


def recorded_config(tracking: Tracking, wanted: str) -> tuple[str, str, dict[str, str]]:
    """Id, YAML config and parameters of a run to resume. Raises TrackingError where it is unknown or cannot go on."""
    from mnist_exp.tracking.find import RESUMABLE, find_run
    from mnist_exp.tracking.mlflow_run import check_resumable

    store = store_of(tracking)
    store.end_dead_runs()
    run = find_run(store, wanted, among=RESUMABLE)
    check_resumable(run)
    config = Path(run.data.tags["folder"], "artifacts", "config.yaml").read_text(encoding="utf-8")
    return run.info.run_id, config, run.data.params
