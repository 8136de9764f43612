"""What several tests share."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from mnist_exp.cli import main
from mnist_exp.tracking.sqlite import create_database


@pytest.fixture(scope="session")
def real_mnist() -> Path:
    """All 70,000 images, where the checkout lies beside them."""
    path = Path(__file__).parents[2] / "shared/data/mnist.npz"
    if not path.is_file():
        pytest.skip("the real MNIST is not here")
    return path


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as it was created, not to be written."""
    database = tmp_path_factory.mktemp("new") / "mlflow.db"
    create_database(database)
    return database


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder in which run_main works."""
    return tmp_path


@pytest.fixture
def run_main(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command line in this process: exit status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(home)
        monkeypatch.setattr(sys, "argv", ["mnist-exp", *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
        try:
            status = main()
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            GlobalHydra.instance().clear()
        return status, *capfd.readouterr()

    return run
