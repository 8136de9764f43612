"""Reads a folder of images with one subfolder per class."""

from pathlib import Path

import numpy as np

from mnist_exp.config.schema import Count, FilePath
from mnist_exp.data.dataset import Dataset, ImageSet, check_arrays
from mnist_exp.data.images import read_image, resize_image
from mnist_exp.errors import DataError, Problem

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def folder(path: FilePath, height: Count, width: Count, channels: int) -> Dataset:
    """Reads the images in one subfolder per class, or in train/ and test/ with one subfolder per class each.

    channels: 1 for grey, 3 for colour images. Images are resized to height x width; transparent pixels become white.
    The class names are the names of the subfolders in alphabetical order. Raises DataError for a missing folder, an
    empty class or an image that cannot be read.
    """
    if channels not in (1, 3):
        raise DataError(Problem("dataset.channels", "must be 1 (grey) or 3 (colour)", channels))
    root = Path(path)
    if root.is_file():
        rule = "must be a folder of images, but is a file"
        raise DataError(Problem(path, rule, remedy="read npz files with dataset=npz"))
    if not root.is_dir():
        rule = f"does not exist (dataset.path, seen from {Path.cwd()})"
        raise DataError(Problem(path, rule, remedy="dataset=digits works without any folder"))
    halves = root / "train", root / "test"
    trained = halves[0] if halves[0].is_dir() else root
    names = _class_names(trained)
    shape = (height, width, channels)
    train = _read(trained, names, shape)
    test = None
    if trained != root and halves[1].is_dir():
        if unknown := set(_class_names(halves[1])) - set(names):
            rule = f"must have the classes of {trained}"
            raise DataError(Problem(str(halves[1]), rule, sorted(unknown), "remove what is not in train"))
        test = _read(halves[1], names, shape)
    total = len(train) + len(test or [])
    return Dataset(train, test, tuple(names), f"{root.name}, {total:,} images in {len(names)} folders")


def _class_names(root: Path) -> list[str]:
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise DataError(Problem(str(root), "has no subfolders", remedy="sort the images into one subfolder per class"))
    return names


def _read(root: Path, names: list[str], shape: tuple[int, int, int]) -> ImageSet:
    images, labels = [], []
    for label, name in enumerate(names):
        found = (path for path in (root / name).rglob("[!.]*") if path.is_file())
        files = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
        if not files:
            rule = f"has no image ({', '.join(sorted(SUFFIXES))})"
            raise DataError(Problem(str(root / name), rule, remedy="add one, or remove the folder"))
        images += [resize_image(read_image(path, str(path)), shape) for path in files]
        labels += [label] * len(files)
    return check_arrays(np.stack(images), np.array(labels), str(root))
