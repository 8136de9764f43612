"""A store with a few small runs in it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import MadeUpStore

import mnist_exp
from mnist_exp.experiment import Result
from mnist_exp.tracking.sqlite import DATABASE, move_store, uri_of
from mnist_exp.tracking.store import Store, open_store

SMALL = ("dataset=digits", "dataset.size=8", "model=mlp", "model.widths=[16]")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """The folder of a store with three runs: one with another split, a poor one and a better one."""
    folder = tmp_path_factory.mktemp("trained")
    given = {
        "elsewhere": ("training.epochs=1", "dataset.seed=7"),
        "poor": ("training.epochs=1",),
        "good": ("training.epochs=8", "optimizer.learning_rate=0.01"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        found = {name: mnist_exp.run(*SMALL, *more, f"name={name}", quiet=True) for name, more in given.items()}
    return folder, found


@pytest.fixture
def runs(trained: tuple[Path, dict[str, Result]], tmp_path: Path) -> tuple[Path, dict[str, Result]]:
    """A copy of it that a test may change."""
    folder = tmp_path / "runs"
    shutil.copytree(trained[0], folder)
    move_store(trained[0] / "mlruns", folder / "mlruns")
    return folder, {name: replace(run, uri=uri_of(folder / "mlruns" / DATABASE)) for name, run in trained[1].items()}


@pytest.fixture
def store(runs: tuple[Path, dict[str, Result]]) -> Store:
    return open_store(None, runs[0] / "mlruns")


@pytest.fixture
def home(runs: tuple[Path, dict[str, Result]]) -> Path:
    """The folder of the runs."""
    return runs[0]


@pytest.fixture
def made_up(tmp_path: Path, new_database: Path) -> MadeUpStore:
    """A store without runs, to which a test adds what it needs."""
    folder = tmp_path / "made-up"
    folder.mkdir()
    return MadeUpStore(folder, new_database)
