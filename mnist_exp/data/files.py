"""Reads images and labels from npz files and from folders of IDX files."""

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mnist_exp.config.schema import FilePath
from mnist_exp.data.dataset import Part, Source, labelled
from mnist_exp.errors import DataError

IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
# The second byte of an IDX file's magic number says of what its elements are (yann.lecun.com/exdb/mnist).
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
COPY_AGAIN = "it may be truncated: copy it again"
NPZ_REMEDY = "copy it again, or write it with numpy.savez(path, x_train=..., y_train=...) from plain arrays"
# What a damaged, encrypted or oddly compressed archive raises; RuntimeError is zipfile's for the last two.
UNREADABLE = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError)


def npz(path: FilePath, class_names: list[str] | None) -> Source:
    """A file of arrays: x_train, y_train and, where there is a test set, x_test, y_test.

    class_names: names of labels 0, 1, 2, ...; None takes the numbers found in training. Raises DataError where the file
    is missing or unreadable, or an array is of the wrong dtype, rank or count.
    """
    arrays = read_arrays(Path(path), "dataset=digits works without any file")
    train = labelled(arrays["x_train"], arrays["y_train"], f"{path} (train)")
    test: Part | None = None
    if "x_test" in arrays:
        test = labelled(arrays["x_test"], arrays["y_test"], f"{path} (test)")
    highest = int(train.labels.max())
    if class_names is None and highest >= len(train):
        raise DataError(
            f"{path}: labels must be 0, 1, 2, ..., but got {highest} among {len(train)} images; "
            "renumber them with numpy.unique(labels, return_inverse=True)[1]"
        )
    names = [str(label) for label in range(highest + 1)] if class_names is None else class_names
    return Source(train, test, tuple(names), f"{Path(path).name}, {len(train) + len(test or []):,} images")


def read_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """x_train, y_train, x_test, y_test from an npz file or a folder of IDX files; the test halves may be missing."""
    if path.is_dir():
        return {key: read_idx(_idx_file(path, name)) for key, name in IDX_NAMES.items()}
    if not path.exists():
        raise DataError(f"{path}: there is no such file (dataset.path, seen from {Path.cwd()}); {remedy}")
    try:
        with path.open("rb") as file:  # numpy leaves a damaged file open that it opened itself
            if not zipfile.is_zipfile(file):
                raise zipfile.BadZipFile("no zip archive, or only a part of one")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in IDX_NAMES if key in archive.files}
                names = archive.files
    except UNREADABLE as error:
        raise DataError(f"{path}: not a readable npz file ({error}); {NPZ_REMEDY}") from error
    for half in ("train", "test"):
        pair = {f"x_{half}", f"y_{half}"}
        present = pair & set(arrays)
        if (half == "train" and present != pair) or len(present) == 1:
            held = ", ".join(names) or "nothing"
            raise DataError(f"{path}: needs {' and '.join(sorted(pair))}, but holds {held}; {NPZ_REMEDY}")
    return arrays


def read_idx(path: Path) -> np.ndarray:
    """The array in one IDX file, gzipped or not. Raises DataError where it is damaged."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: not a readable gzip or IDX file ({error}); {COPY_AGAIN}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES or not 1 <= content[3] <= 4:
        start = content[:4].hex(" ") or "nothing"
        raise DataError(
            f"{path}: an IDX file starts with 00 00, a type and a rank up to 4, but got {start}; {COPY_AGAIN}"
        )
    dtype, rank = np.dtype(IDX_TYPES[content[2]]), content[3]
    header = 4 + 4 * rank
    if len(content) < header:
        raise DataError(f"{path}: its header must have {header} bytes, but got {len(content)} in all; {COPY_AGAIN}")
    shape = struct.unpack(f">{rank}I", content[4:header])
    expected, got = math.prod(shape) * dtype.itemsize, len(content) - header
    if expected != got:
        raise DataError(f"{path}: its header promises {expected:,} bytes of {shape}, but {got:,} follow; {COPY_AGAIN}")
    return np.frombuffer(content, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


def _idx_file(folder: Path, name: str) -> Path:
    candidates = [folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx")]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(
        f"{folder}: a folder of IDX files needs {', '.join(IDX_NAMES.values())}, each perhaps with .gz, "
        f"but {name} is missing; a folder of images is read with dataset=folder"
    )
