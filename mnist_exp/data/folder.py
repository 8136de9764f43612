"""Reads a folder of images with one subfolder per class."""

import mimetypes
import os
from pathlib import Path
from typing import Literal

import numpy as np

from mnist_exp.config.schema import Count, FilePath
from mnist_exp.data.dataset import Dataset, ImageSet
from mnist_exp.data.decode import Decoded, decode, name_some
from mnist_exp.data.groups import group_by_path
from mnist_exp.data.images import Fit
from mnist_exp.errors import DataError, Problem

SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
# Names of the folders of splits, the first that exists is read.
SPLITS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
PREPARATIONS = {"stretch": "resize", "pad": "pad", "crop": "crop"}


def folder(
    path: FilePath,
    height: Count | None = None,
    width: Count | None = None,
    channels: Literal[1, 3] | None = None,
    fit: Fit = "stretch",
    group: str | None = None,
) -> Dataset:
    """Reads the images in one subfolder per class, or in train/, val/ and test/ with one subfolder per class each.

    height, width, channels: of every image; None takes them from the images. fit: how one of other proportions gets
    this shape. group: a regular expression that is looked for in the path of an image, below its class or split; what
    its first group matches names the group. The class names are the names of the subfolders in alphabetical order.
    Images in deeper folders belong to the class above them; hidden folders are not read. Raises DataError for a missing
    folder or an empty class.
    """
    root = Path(path)
    if root.is_file():
        rule = "must be a folder of images, but is a file"
        raise DataError(Problem(path, rule, remedy="read npz files with dataset=npz, and CSV files with dataset=csv"))
    if not root.is_dir():
        rule = f"does not exist (dataset.path, seen from {Path.cwd()})"
        raise DataError(Problem(path, rule, remedy="dataset=digits works without any folder"))
    parts = {split: found for split in SPLITS if (found := _find_split(root, split))}
    if "train" not in parts:
        parts = {"train": root}
    names = _class_names(parts["train"])
    files, labels, of_split = list[Path](), list[int](), list[str]()
    notes = [*_loose(root, set(parts.values())), *_others(root, set(parts.values()))]
    unread = list[Path]()
    for split, below in parts.items():
        if unknown := set(_class_names(below)) - set(names):
            rule = f"must have the classes of {parts['train']}"
            remedy = "remove what is not in train" if split != "train" else ""
            raise DataError(Problem(str(below), rule, sorted(unknown), remedy))
        for label, name in enumerate(names):
            images, others = _images_below(below / name)
            unread += others
            if not images and split == "train":
                rule = f"has no image ({', '.join(sorted(SUFFIXES))})"
                raise DataError(Problem(str(below / name), rule, remedy="add one, or remove the folder"))
            if deeper := sorted({file.parent.name for file in images if file.parent != below / name}):
                notes.append(f"{name_some(deeper, 'folder')} below {name}: their images are of class {name}")
            files += images
            labels += [label] * len(images)
            of_split += [split] * len(images)
    if unread:
        kinds = ", ".join(sorted({file.suffix for file in unread}))
        named = name_some([file.relative_to(root) for file in unread], "image")
        notes.append(f"not used: {named} of other kinds ({kinds})")
    decoded = decode(files, (height, width, channels), fit, str(root))
    paths = np.array([file.relative_to(root).as_posix() for file in files])[decoded.kept]
    groups = None if group is None else group_by_path(paths, group)
    sets = _sets(decoded, np.array(labels), np.array(of_split), groups, paths)
    for label, name in enumerate(names):
        if not (sets["train"].labels == label).any():
            rule = "must hold an image that can be read"
            raise DataError(Problem(str(parts["train"] / name), rule, remedy="convert its images to PNG"))
    return Dataset(
        sets["train"],
        sets.get("test"),
        tuple(names),
        f"{root.name}, {len(decoded.kept):,} images in {len(names)} folders",
        PREPARATIONS[fit],  # type: ignore[arg-type]
        validation=sets.get("validation"),
        notes=(*notes, *decoded.notes),
    )


def _find_split(root: Path, split: str) -> Path | None:
    return next((root / name for name in SPLITS[split] if (root / name).is_dir()), None)


def _class_names(root: Path) -> list[str]:
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise DataError(Problem(str(root), "has no subfolders", remedy="sort the images into one subfolder per class"))
    return names


def _images_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Returns the images below a folder, also behind symlinks, and those of kinds that are not read. None is hidden."""
    found, seen = list[Path](), set[str]()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a symlink that leads to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in files if not name.startswith(".")]
    found = sorted(path for path in found if path.is_file())
    others = [path for path in found if path.suffix.lower() not in SUFFIXES and _is_image(path)]
    return [path for path in found if path.suffix.lower() in SUFFIXES], others


def _is_image(path: Path) -> bool:
    """Whether the name of a file is that of an image of any kind, such as photo.heic."""
    return (mimetypes.guess_type(path.name)[0] or "").startswith("image/")


def _others(root: Path, parts: set[Path]) -> list[str]:
    """Notes about folders beside train/ that are no split, and about hidden folders with images."""
    notes = []
    beside = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if root not in parts and (unused := [name for name in beside if root / name not in parts]):
        names = ", ".join(name for split in SPLITS.values() for name in split)
        notes.append(f"not used: {name_some(unused, 'folder')} beside the splits; these are named {names}")
    hidden = sorted(
        folder.relative_to(root)
        for folder in root.rglob(".*")
        if folder.is_dir() and any(path.suffix.lower() in SUFFIXES for path in folder.glob("*"))  # no PermissionError
    )
    return [*notes, *([f"not used: {name_some(hidden, 'hidden folder')} with images"] if hidden else [])]


def _loose(root: Path, parts: set[Path]) -> list[str]:
    """Notes about images that lie beside the folders of the classes."""
    loose = sorted(
        path.relative_to(root)
        for below in {root, *parts}
        for path in below.iterdir()
        if path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    return [f"{name_some(loose, 'image')} in no folder of a class: not used"] if loose else []


def _sets(
    decoded: Decoded, labels: np.ndarray, of_split: np.ndarray, groups: np.ndarray | None, names: np.ndarray
) -> dict[str, ImageSet]:
    kept_labels, kept_splits = labels[decoded.kept], of_split[decoded.kept]
    found = {}
    for split in SPLITS:
        chosen = np.flatnonzero(kept_splits == split)
        if len(chosen):
            one_group = None if groups is None else groups[chosen]
            found[split] = ImageSet(decoded.images[chosen], kept_labels[chosen], one_group, names[chosen])
    return found
