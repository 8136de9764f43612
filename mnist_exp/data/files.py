"""Reads images and labels from npz files and from folders of IDX files."""

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mnist_exp.config.schema import FilePath
from mnist_exp.data.dataset import Dataset, check_arrays
from mnist_exp.errors import DataError, Problem

IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
# The third byte of an IDX file is the type of its elements (yann.lecun.com/exdb/mnist).
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
COPY_AGAIN = "it may be truncated: copy it again"
NPZ_REMEDY = "copy it again, or write it with numpy.savez(path, x_train=..., y_train=...) from plain arrays"
# Errors of a damaged, encrypted or unusually compressed archive; zipfile raises RuntimeError for the last two.
UNREADABLE = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError)


def npz(path: FilePath, class_names: list[str] | None) -> Dataset:
    """Reads a file with the arrays x_train and y_train and, if there is a test set, x_test and y_test.

    class_names: names of the labels 0, 1, 2, ...; None uses the numbers up to the highest training label. Raises
    DataError if the file is missing or unreadable, or an array has the wrong dtype, shape or length.
    """
    arrays = read_arrays(Path(path), "dataset=digits works without any file")
    train = check_arrays(arrays["x_train"], arrays["y_train"], f"{path} (train)")
    test = check_arrays(arrays["x_test"], arrays["y_test"], f"{path} (test)") if "x_test" in arrays else None
    highest = int(train.labels.max())
    if class_names is None and highest >= len(train):
        rule = f"must be below {len(train)}, the number of images"
        remedy = "renumber them with numpy.unique(labels, return_inverse=True)[1]"
        raise DataError(Problem(f"{path}: labels", rule, highest, remedy))
    names = [str(label) for label in range(highest + 1)] if class_names is None else class_names
    return Dataset(train, test, tuple(names), f"{Path(path).name}, {len(train) + len(test or []):,} images")


def read_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Reads x_train, y_train, x_test and y_test from an npz file or a folder of IDX files.

    An npz file may have no test arrays. remedy: for the error if there is no file.
    """
    if path.is_dir():
        return {key: read_idx(_idx_file(path, name)) for key, name in IDX_NAMES.items()}
    if not path.exists():
        raise DataError(Problem(str(path), f"does not exist (dataset.path, seen from {Path.cwd()})", remedy=remedy))
    try:
        with path.open("rb") as file:  # if numpy opened a damaged file, it would leave it open
            if not zipfile.is_zipfile(file):
                raise zipfile.BadZipFile("not a zip archive, or only part of one")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in IDX_NAMES if key in archive.files}
                names = archive.files
    except UNREADABLE as error:
        raise DataError(Problem(str(path), f"is not a readable npz file ({error})", remedy=NPZ_REMEDY)) from error
    for half in ("train", "test"):
        pair = {f"x_{half}", f"y_{half}"}
        present = pair & set(arrays)
        if (half == "train" and present != pair) or len(present) == 1:
            raise DataError(Problem(str(path), f"must hold {' and '.join(sorted(pair))}", names, NPZ_REMEDY))
    return arrays


def read_idx(path: Path) -> np.ndarray:
    """Reads the array in an IDX file, gzipped or not. Raises DataError if the file is damaged."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        rule = f"is not a readable gzip or IDX file ({error})"
        raise DataError(Problem(str(path), rule, remedy=COPY_AGAIN)) from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES or not 1 <= content[3] <= 4:
        rule = "must start with 00 00, a type and a rank up to 4, as IDX files do"
        raise DataError(Problem(str(path), rule, content[:4].hex(" "), COPY_AGAIN))
    dtype, rank = np.dtype(IDX_TYPES[content[2]]), content[3]
    header = 4 + 4 * rank
    if len(content) < header:
        raise DataError(Problem(str(path), f"must have a header of {header} bytes", len(content), COPY_AGAIN))
    shape = struct.unpack(f">{rank}I", content[4:header])
    expected, got = math.prod(shape) * dtype.itemsize, len(content) - header
    if expected != got:
        raise DataError(Problem(str(path), f"must hold {expected} bytes of {shape} after its header", got, COPY_AGAIN))
    return np.frombuffer(content, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


def _idx_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx")):
        if path.is_file():
            return path
    rule = f"has no {name}; a folder of IDX files needs {', '.join(IDX_NAMES.values())}, with or without .gz"
    raise DataError(Problem(str(folder), rule, remedy="read a folder of images with dataset=folder"))
