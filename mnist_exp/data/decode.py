"""Reads image files into one array: their size, their colours, and what could not be read."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from mnist_exp.data.images import Fit, read_image, resize_image
from mnist_exp.errors import DataError, Problem

LONGEST = 128  # pixels of the longer side, if images of several sizes are to be resized and no size is given
GREY = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")  # modes of Pillow
NAMED = 3  # files that a note names
NO_IMAGE = "is no kind of image that Pillow knows"
MOST_MEMORY = 0.7  # share of the free memory that images may take

# Of what the wanted size consists: height, width and channels; None: as the images have it.
Wanted = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Decoded:
    """Images that could be read. images: uint8 (n, height, width, channels). kept: their places among the files."""

    images: np.ndarray
    kept: np.ndarray
    notes: tuple[str, ...]


def decode(files: Sequence[Path], wanted: Wanted, fit: Fit, where: str) -> Decoded:
    """Reads image files. They get one size, and three channels if any of them has colours.

    where: names the data set in errors. Raises DataError if none can be read, or if they would not fit into memory.
    """
    nothing = DataError(Problem(where, "must hold images that can be read", str(files[0]), "convert them to PNG"))
    with ThreadPoolExecutor() as threads:
        headers = list(threads.map(_read_header, files))
        readable = [place for place, header in enumerate(headers) if header]
        if not readable:
            raise nothing
        sizes = Counter(header.size for header in headers if header)
        height, width, note = _choose_size(sizes, wanted)
        channels = wanted[2] or (3 if any(not header.is_grey for header in headers if header) else 1)
        check_memory(len(readable), (height, width, channels), where)
        shape = height, width, channels
        read = dict(zip(readable, threads.map(lambda place: _read(files[place], shape, fit), readable), strict=True))
    found = {place: image for place, image in read.items() if isinstance(image, np.ndarray)}
    if not found:
        raise nothing
    images = np.stack(list(found.values()))
    notes = [note] if note else []
    if wanted[2] is None and channels == 3 and _is_grey(images):
        images = np.ascontiguousarray(images[..., :1])
        if any(not header.is_grey for place in found if (header := headers[place])):
            notes.append("saved in colour, but all of them are grey: kept as grey images")
    dropped = sorted({*range(len(files))} - {*found})
    if dropped:
        named, reason = name_some([files[place] for place in dropped], "file"), read.get(dropped[0], NO_IMAGE)
        notes.append(f"not used: {named}; the first {reason}")
    return Decoded(images, np.array(list(found)), tuple(notes))


def check_memory(count: int, shape: tuple[int, int, int], where: str) -> None:
    """Raises DataError if that many images would not fit into memory."""
    needed, free = count * int(np.prod(shape)), psutil.virtual_memory().available
    if needed > MOST_MEMORY * free:
        height, width, channels = shape
        rule = f"must fit into memory: {count:,} images of {height}x{width}x{channels} take {needed / 2**30:.1f} GiB"
        remedy = "give a smaller dataset.height and dataset.width, or fewer images"
        raise DataError(Problem(where, rule, f"{free / 2**30:.1f} GiB free", remedy))


def name_some(files: Sequence[Path | str], noun: str, plural: str = "") -> str:
    """Returns `3 files (a.png, b.png, c.png)`; of many, the first are named."""
    shown = ", ".join(str(file) for file in files[:NAMED]) + (", ..." if len(files) > NAMED else "")
    return f"{len(files):,} {noun if len(files) == 1 else plural or noun + 's'} ({shown})"


@dataclass(frozen=True)
class _Header:
    size: tuple[int, int]  # height and width, upright
    is_grey: bool


def _read_header(file: Path) -> _Header | None:
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # Orientation
            width, height = reversed(image.size) if turned else image.size
            return _Header((height, width), image.mode in GREY)
    except Exception:  # Pillow raises OSError, SyntaxError, TypeError and more for a damaged file
        return None


def _read(file: Path, shape: tuple[int, int, int], fit: Fit) -> np.ndarray | str:
    """The image, else why it cannot be read."""
    try:
        return resize_image(read_image(file, str(file)), shape, fit)
    except DataError as error:
        return error.problems[0].rule


def _choose_size(sizes: Counter[tuple[int, int]], wanted: Wanted) -> tuple[int, int, str]:
    """Returns height, width and a note if the images are resized to a size that nobody gave."""
    height, width, _ = wanted
    (usual_height, usual_width), _count = sizes.most_common(1)[0]
    if height and width:
        return height, width, ""
    if height:  # the other side in proportion
        return height, max(1, round(height * usual_width / usual_height)), ""
    if width:
        return max(1, round(width * usual_height / usual_width)), width, ""
    if len(sizes) == 1:
        return usual_height, usual_width, ""
    heights, widths = (sorted(size[side] for size in sizes.elements()) for side in (0, 1))
    middle = heights[len(heights) // 2], widths[len(widths) // 2]
    scale = min(1.0, LONGEST / max(middle))
    height, width = (max(1, round(side * scale)) for side in middle)
    span = f"{heights[0]}x{widths[0]} to {heights[-1]}x{widths[-1]}"
    return height, width, f"sizes from {span}: resized to {height}x{width}, unless dataset.height and width are given"


def _is_grey(images: np.ndarray) -> bool:
    return all(bool((image == image[..., :1]).all()) for image in images)
