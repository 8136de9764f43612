"""Reads a CSV file: labels with pixels, as Kaggle's MNIST, or labels with the names of image files."""

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mnist_exp.config.schema import Count, FilePath, OptionalPath
from mnist_exp.data.dataset import Dataset, ImageSet, check_arrays
from mnist_exp.data.decode import Wanted, check_memory, decode
from mnist_exp.data.folder import PREPARATIONS
from mnist_exp.data.groups import number_groups
from mnist_exp.data.images import Fit
from mnist_exp.data.numbers import to_bytes
from mnist_exp.errors import DataError, Problem, nearest

if TYPE_CHECKING:
    import pandas as pd

PIXEL = re.compile(r"(?:pixel|pix|px|p)?[_ ]?(\d+)(?:x(\d+))?", re.IGNORECASE)
LABELS = ("label", "class", "target", "y", "category")  # usual names of the column of labels
FILES = ("file", "filename", "file_name", "image", "path", "filepath", "image_id", "id")  # and of that of files
SUFFIXES = ("", ".png", ".jpg", ".jpeg")  # that names of files may lack
PARTS = {"train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
         "test": "test", "testing": "test"}  # fmt: skip


def csv(
    path: FilePath,
    label: str | None = None,
    file: str | None = None,
    images: OptionalPath = None,
    split: str | None = None,
    group: str | None = None,
    height: Count | None = None,
    width: Count | None = None,
    channels: Literal[1, 3] | None = None,
    fit: Fit = "stretch",
) -> Dataset:
    """Reads a table with one image per row.

    label: the column of labels, numbers or names. file: that of the names of image files, which are below the folder
    `images`, else beside the table. Without one, the other columns named pixel0, pixel1, ... or 0, 1, ... are pixels,
    from 0 to 255 or from 0 to 1, row by row. split: the column that says train, val or test. group: the column of what
    must not be on two sides of a split. height, width, channels, fit: as for a folder; of pixels, a square. Raises
    DataError for what is missing.
    """
    columns = [str(column) for column in _read(Path(path), nrows=0).columns]
    label = _find(columns, label, LABELS, "label", path)
    pixels = [column for column in columns if column != label and PIXEL.fullmatch(column)]
    if file is not None or len(pixels) < 4:
        file = _find(columns, file, FILES, "file", path)
    group = None if group is None else _find(columns, group, (), "group", path)
    names = [name for name in (file, group) if name is not None]
    table = _read(Path(path), dtype=dict.fromkeys(names, str))  # 007 is no number
    if table.empty:
        raise DataError(Problem(path, "must have rows below its header", remedy="check how it was written"))
    for name in names:
        _check_filled(table[name].to_list(), f"{path}: {name}")
        table[name] = table[name].str.strip()
    notes: list[str] = []
    if file is None:
        if (ordered := _sort(pixels)) != pixels:
            notes.append(f"the columns of pixels were sorted by their numbers: {ordered[0]}, {ordered[1]}, ...")
            pixels = ordered
        arrays, kept = _pixels(table, pixels, (height, width, channels), path, notes), np.arange(len(table))
        preparation, files = "resize", None
    else:
        root = Path(images) if images else Path(path).parent
        decoded = decode(_files(table, file, root, path), (height, width, channels), fit, path)
        arrays, kept, preparation = decoded.images, decoded.kept, PREPARATIONS[fit]
        files = table[file].astype(str).to_numpy()[kept]
        notes += decoded.notes
    labels, class_names = number_labels(table[label].to_numpy()[kept], path)
    groups = None
    if group is not None:
        groups = number_groups(list(table[group].to_numpy()[kept]))
    whole = check_arrays(arrays, labels, path)
    whole = ImageSet(whole.images, whole.labels, groups, files)
    sets = {"train": whole}
    if split is not None:
        sets = _divide(whole, table[_find(columns, split, (), "split", path)].to_numpy()[kept], path)
    words = f"{Path(path).name}, {len(whole):,} images in {len(class_names)} classes"
    return Dataset(
        sets["train"], sets.get("test"), class_names, words, preparation,  # type: ignore[arg-type]
        validation=sets.get("validation"), notes=tuple(notes),
    )  # fmt: skip


def number_labels(labels: np.ndarray, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns labels 0, 1, ... and the names of the classes, in order: numbers by their size, others by the alphabet.

    Raises DataError for a label that is missing.
    """
    _check_filled(labels, f"{where}: labels")
    if labels.dtype.kind == "f" and (labels == labels.astype(np.int64)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iu":
        words = (one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in labels)
        labels = np.array([word.strip() for word in words])
    found, numbers = np.unique(labels, return_inverse=True)
    return numbers.astype(np.int64), tuple(map(str, found))


def _check_filled(cells: Iterable[object], key: str) -> None:
    """Raises DataError for an empty cell: None, not a number, or nothing but blanks."""
    for row, one in enumerate(cells, 2):  # row 1 is the header
        if one is None or one != one or (isinstance(one, str | bytes) and not one.strip()):
            rule = f"must not be empty, but that of row {row} is"
            raise DataError(Problem(key, rule, remedy="fill it in, or remove the row"))


def _read(path: Path, **more: Any) -> "pd.DataFrame":
    import pandas as pd

    if not path.is_file():
        rule = f"must be a CSV file (dataset.path, seen from {Path.cwd()})"
        raise DataError(Problem(str(path), rule, remedy="dataset=digits works without any file"))
    # NA and None may be names of classes. A comma after each row must not make the first column an index.
    more |= {"skipinitialspace": True, "keep_default_na": False, "na_values": [""], "index_col": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows with more cells than the header has names
            return pd.read_csv(path, encoding="utf-8-sig", **more)
    except (ValueError, UnicodeDecodeError, OSError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            Problem(str(path), f"is not a readable CSV file ({reason})", remedy="save it again as CSV in UTF-8")
        ) from error


def _find(columns: list[str], given: str | None, usual: tuple[str, ...], key: str, path: str) -> str:
    """Returns the name of a column: the one that was given, else the first usual name that there is."""
    if given is not None:
        if given in columns:
            return given
        shown = nearest(given, columns) or f"the columns are {', '.join(columns[:12])}"
        raise DataError(Problem(f"dataset.{key}", f"must be a column of {path}", given, shown))
    lower = {column.lower(): column for column in columns}
    found = next((lower[name] for name in usual if name in lower), None)
    if found is None:
        rule = f"must be given, because {path} has no column named {', '.join(usual[:-1])} or {usual[-1]}"
        raise DataError(Problem(f"dataset.{key}", rule, remedy=f"the columns are {', '.join(columns[:12])}"))
    return found


def _sort(columns: list[str]) -> list[str]:
    """Returns names of columns of pixels in the order of their numbers; as they are, if two have the same."""
    numbers = [
        [int(number or 0) for number in found.groups()] for column in columns if (found := PIXEL.fullmatch(column))
    ]
    if len({*map(tuple, numbers)}) < len(columns):
        return columns
    return [column for _, column in sorted(zip(numbers, columns, strict=True))]


def _pixels(table: "pd.DataFrame", columns: list[str], wanted: Wanted, path: str, notes: list[str]) -> np.ndarray:
    height, width, channels = wanted
    values = table[columns].to_numpy()
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        bad = next(
            name for name in columns if table[name].dtype.kind not in "iuf" or not np.isfinite(table[name]).all()
        )
        raise DataError(
            Problem(f"{path}: {bad}", "must hold a number in every row", remedy="look for empty cells and words")
        )
    count = len(columns)
    shapes = [(h, w, c) for c in ([channels] if channels else [1, 3])
              for h, w in [_sides(count // c, height, width)] if count % c == 0 and h * w * c == count]  # fmt: skip
    if not shapes:
        rule = f"must make an image, but {count} pixels make no {'square' if not (height or width) else 'such one'}"
        raise DataError(Problem(path, rule, remedy="give dataset.height and dataset.width"))
    check_memory(len(values), shapes[0], path)
    return to_bytes(values, path, notes).reshape(-1, *shapes[0])


def _sides(pixels: int, height: int | None, width: int | None) -> tuple[int, int]:
    if height and width:
        return height, width
    if height or width:
        return (height, pixels // height) if height else (pixels // (width or 1), width or 1)
    side = round(pixels**0.5)
    return side, side


def _files(table: "pd.DataFrame", column: str, root: Path, path: str) -> list[Path]:
    found, missing = [], []
    for name in table[column].astype(str):
        file = next((root / f"{name}{suffix}" for suffix in SUFFIXES if (root / f"{name}{suffix}").is_file()), None)
        found.append(file or root / name)
        if file is None:
            missing.append(name)
    if missing:
        rule = f"must name files below {root}, but {len(missing):,} of {len(found):,} are not there"
        raise DataError(Problem(f"{path}: {column}", rule, missing[0], "give their folder as dataset.images"))
    return found


def _divide(whole: ImageSet, of_split: np.ndarray, path: str) -> dict[str, ImageSet]:
    parts = np.array([PARTS.get(str(name).strip().lower(), "") for name in of_split])
    if unknown := sorted({str(name) for name, part in zip(of_split, parts, strict=True) if not part}):
        raise DataError(Problem(f"{path}: the column of splits", "must say train, val or test", unknown[:5]))
    if not (parts == "train").any():
        raise DataError(Problem(f"{path}: the column of splits", "must say train in some rows"))
    return {part: whole[np.flatnonzero(parts == part)] for part in dict.fromkeys(parts.tolist())}
