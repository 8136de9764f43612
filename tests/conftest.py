"""What several tests share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_mnist() -> Path:
    """All 70,000 images, where the checkout lies beside them."""
    path = Path(__file__).parents[2] / "shared/data/mnist.npz"
    if not path.is_file():
        pytest.skip("the real MNIST is not here")
    return path
