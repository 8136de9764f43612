"""Where runs are kept: in a folder while they are written, and in MLflow, which only this package imports."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_exp.config.own_code import digest_own_code, own_files
from mnist_exp.config.recorded import targets_of
from mnist_exp.config.schema import Tracking
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.tracking.active_run import ActiveRun, Timer
from mnist_exp.tracking.find import find_finished
from mnist_exp.tracking.owner import end_dead_runs
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.stored_run import StoredRun, parse_config, read_config
from mnist_exp.tracking.tags import FOLDER, OWN_CODE

__all__ = ["ActiveRun", "Timer", "read_parent", "read_resumable", "start_run"]


def start_run(settings: Tracking, name: str, resume: str | None = None, timer: Timer | None = None) -> ActiveRun:
    """Starts a new run, or resumes the one that `resume` names.

    timer: one that has measured what came before the run.
    Raises TrackingError before anything is trained if the store cannot be used.
    """
    timer = timer or Timer()
    with timer("tracking"):
        active = _open_run(settings, name, resume)
    active.timer = timer
    return active


def _open_run(settings: Tracking, name: str, resume: str | None) -> ActiveRun:
    folder = Path(settings.folder).resolve()
    if not settings.enabled:
        return ActiveRun.create(folder, name)
    from mnist_exp.tracking.mlflow_run import MlflowRun

    store = connect(settings)
    end_dead_runs(store)
    if resume is not None:
        return MlflowRun.resume_run(store, resume)
    return MlflowRun.create_run(store, folder, settings.experiment, name)


def read_parent(settings: Tracking, wanted: str) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Returns id, config values and choices of a finished run. Raises TrackingError if there is none such."""
    store = connect(settings)
    run = find_finished(store, wanted).run
    return run.id, read_config(store, run), run.choices


def read_resumable(settings: Tracking, wanted: str) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Returns id, config values and choices of a run to resume.

    Raises TrackingError if it cannot be resumed, ConfigError if the user's code is not that with which it began.
    """
    from mnist_exp.tracking.mlflow_run import find_resumable

    store = connect(settings)
    end_dead_runs(store)
    run = find_resumable(store, wanted)
    path = Path(run.tags[FOLDER], "artifacts", "config.yaml")
    config = parse_config(path, run.choices, store.whitelist)
    _check_own_code(run, config)
    return run.id, config, run.choices


def _check_own_code(run: StoredRun, config: Mapping[str, Any]) -> None:
    """Raises ConfigError if the code that a config names has changed. Runs of early versions know no digest of it."""
    began, found = run.tags.get(OWN_CODE), digest_own_code(config)
    if began not in (None, found):
        rule = f"must be resumed with the code with which it began ({OWN_CODE} {began[:12]})"
        files = ", ".join(sorted(str(file) for file in own_files(targets_of(config)).values())) or "its files"
        remedy = f"restore {files} as at its start, or start a new run"
        raise ConfigError(Problem(run.label, rule, found and found[:12], remedy))
