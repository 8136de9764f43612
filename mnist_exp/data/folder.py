"""Reads a folder of images, one sub-folder a class."""

from pathlib import Path

import numpy as np

from mnist_exp.config.schema import Count, FilePath
from mnist_exp.data.dataset import Part, Source, labelled
from mnist_exp.data.images import fitted, read_image
from mnist_exp.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def folder(path: FilePath, height: Count, width: Count, channels: int) -> Source:
    """Images in class sub-folders, or in train/ and test/ halves of such, resized to height x width.

    channels: 1 makes them grey, 3 colour; transparent pixels become white. Class names are the folders' names in
    alphabetical order. Raises DataError for a missing folder, an empty class or an image that cannot be read.
    """
    if channels not in (1, 3):
        raise DataError(f"dataset.channels must be 1 (grey) or 3 (colour), but got {channels}")
    root = Path(path)
    if root.is_file():
        raise DataError(f"{path}: dataset=folder needs a folder of images, but got a file; dataset=npz reads npz files")
    if not root.is_dir():
        raise DataError(
            f"{path}: there is no such folder (dataset.path, seen from {Path.cwd()}); dataset=digits needs none"
        )
    halves = root / "train", root / "test"
    trained = halves[0] if halves[0].is_dir() else root
    names = _class_names(trained)
    shape = (height, width, channels)
    train = _read(trained, names, shape)
    test = None
    if trained != root and halves[1].is_dir():
        if unknown := set(_class_names(halves[1])) - set(names):
            more = ", ".join(sorted(unknown))
            raise DataError(f"{halves[1]}: classes must be those of {trained}, but got {more} as well; remove it")
        test = _read(halves[1], names, shape)
    total = len(train) + len(test or [])
    return Source(train, test, tuple(names), f"{root.name}, {total:,} images in {len(names)} folders")


def _class_names(root: Path) -> list[str]:
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise DataError(
            f"{root}: needs a sub-folder of images for each class, but holds no folder; sort them into such"
        )
    return names


def _read(root: Path, names: list[str], shape: tuple[int, int, int]) -> Part:
    images, labels = [], []
    for label, name in enumerate(names):
        found = (path for path in (root / name).rglob("[!.]*") if path.is_file())
        files = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
        if not files:
            kinds = ", ".join(sorted(SUFFIXES))
            raise DataError(f"{root / name}: a class needs at least one image ({kinds}), but has none; add one")
        images += [fitted(read_image(path, str(path)), shape) for path in files]
        labels += [label] * len(files)
    return labelled(np.stack(images), np.array(labels), str(root))
