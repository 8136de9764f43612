"""A tracking store for sweeps."""

import shutil
import sys
from pathlib import Path

import pytest

from mnist_exp.config.schema import Tracking

sys.path.append(str(Path(__file__).parents[1] / "evaluation"))  # whose test_figures.py says when a figure is readable


@pytest.fixture(autouse=True)
def _no_store_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def tracking(tmp_path: Path, new_database: Path) -> Tracking:
    (tmp_path / "mlruns").mkdir()
    shutil.copy(new_database, tmp_path / "mlruns")
    return Tracking(enabled=True, uri=None, experiment="sweeps", folder=str(tmp_path / "mlruns"))
