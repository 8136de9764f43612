"""A tracking store of each test's own."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_exp.tracking.mlflow_run import MlflowRun
from mnist_exp.tracking.store import Store, open_store


@pytest.fixture(autouse=True)
def _no_store_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def folder(tmp_path: Path, new_database: Path) -> Path:
    """A folder with a fresh local store."""
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(new_database, folder)
    return folder


@pytest.fixture
def store(folder: Path) -> Store:
    return open_store(None, folder)


@pytest.fixture
def record(store: Store, folder: Path) -> MlflowRun:
    """The record of a run that has just begun."""
    return MlflowRun.create_run(store, folder, "digits", "mine")


@pytest.fixture
def history(store: Store) -> Callable[..., list[tuple[int, float]]]:
    """Steps and values of a metric, in the order in which they arrived."""

    def ask(run_id: str, key: str, store: Store = store) -> list[tuple[int, float]]:
        return [(metric.step, metric.value) for metric in store.client.get_metric_history(run_id, key)]

    return ask
