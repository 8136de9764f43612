"""What several tests share."""

from pathlib import Path

import pytest

from mnist_exp.tracking.database import create_database


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
