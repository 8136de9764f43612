"""Small labelled images, and the ways to get them into a run."""

import gzip
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.data.load import load_splits
from mnist_exp.data.splits import Splits

Arrays = dict[str, np.ndarray]
IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


@pytest.fixture
def load() -> Callable[..., Splits]:
    """The splits of these overrides, as a run gets them."""
    return lambda *overrides: load_splits(check(compose(overrides)))


@pytest.fixture
def arrays() -> Arrays:
    """30 training and 12 test images of 6x5, all different, of classes 0, 1, 2 in turn."""
    random = np.random.default_rng(0)
    return {
        "x_train": random.integers(0, 256, (30, 6, 5), dtype=np.uint8),
        "y_train": np.arange(30, dtype=np.uint8) % 3,
        "x_test": random.integers(0, 256, (12, 6, 5), dtype=np.uint8),
        "y_test": np.arange(12, dtype=np.uint8) % 3,
    }


@pytest.fixture
def save(tmp_path: Path) -> Iterator[Callable[[Arrays], str]]:
    """Writes arrays to an npz file and returns its path."""
    path = tmp_path / "mine.npz"

    def write(arrays: Arrays) -> str:
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return str(path)

    yield write
    path.unlink(missing_ok=True)  # pytest keeps what three runs wrote, and MNIST takes 55 MB


@pytest.fixture
def save_idx(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Writes the four IDX files, gzipped or not, and returns their folder."""
    folder = tmp_path / "idx"

    def write(arrays: Arrays, gzipped: bool = False) -> Path:
        folder.mkdir()
        for key, name in IDX.items():
            array = arrays[key]
            content = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()
            if gzipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1))
            else:
                (folder / name).write_bytes(content)
        return folder

    yield write
    shutil.rmtree(folder, ignore_errors=True)
