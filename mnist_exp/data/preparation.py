"""Turns a photo or a drawing into an image like those that a model was trained on.

There are five recipes; each model is stored with the name of its own. `mnist` does what the makers of MNIST did
(LeCun et al. 1998): it cuts out the digit, light on black, scales its longer side to 20 of 28 pixels and centres it by
mass. `digits` does the same without a margin, like scikit-learn's digits. `resize`, `pad` and `crop` only change
size and channels, in the three ways of `images.Fit`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from mnist_exp.data.dataset import Preparation
from mnist_exp.data.images import Fit, put_on_paper, resize_image
from mnist_exp.errors import DataError, Problem

LARGEST = 800  # pixels of the longer side; larger images are reduced first
FINE = 160  # pixels of the longer side of a digit while its strokes are measured and changed
THINNEST, THICKEST = 0.09, 0.18  # shares of the longer side; 90% of MNIST's digits have strokes between them
# A shape is not like a digit if its thickest place is thicker than this many of its strokes. The largest number was 3.3
# in 1,000 images of MNIST and 4.3 in the 400 drawings of tests/drawings.py. 30 of 39 parts of two photos were above 5.
UNEVEN = 5
NO_STROKES = "not like a digit"
FAINTEST = 12  # grey levels between ink and paper; an image with less shows nothing
EMPTY = Problem("an image to predict", "must show something, but its pixels are all alike")
NOISY = Problem("an image to predict", "must show something that stands out from its background, but it is too noisy")


class Tile(NamedTuple):
    """What a model sees of an image.

    pixels: uint8 (height, width, channels). doubt: in words, if the image is not of the kind that the model knows.
    """

    pixels: np.ndarray
    doubt: str = ""


def prepare(image: Image.Image, recipe: Preparation, shape: tuple[int, int, int]) -> Tile:
    """Turns an RGBA image into the tile that a model gets. Raises DataError if the image shows nothing."""
    return RECIPES[recipe](image, shape)


def _resize(image: Image.Image, shape: tuple[int, int, int], fit: Fit = "stretch") -> Tile:
    return Tile(resize_image(image, shape, fit))


def _centre_digit(image: Image.Image, shape: tuple[int, int, int], *, box: float) -> Tile:
    """Draws the digit light on black, centred by mass. box: its longer side as a share of the tile's."""
    height, width, channels = shape
    image = image.copy()
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    fine = _scale(_crop(_remove_specks(_ink(image))), FINE)
    usual, thickest = _thickness(np.pad(fine, 1))
    digit = _scale(_crop(_normalize_thickness(fine, usual)), box * min(height, width))
    tile = np.zeros((height, width))
    top, left = (
        int(np.clip(round(side / 2 - 0.5 - mass), 0, side - length))
        for side, mass, length in zip((height, width), ndimage.center_of_mass(digit), digit.shape, strict=True)
    )
    tile[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    pixels = np.repeat(np.round(255 * tile).astype(np.uint8)[..., None], channels, axis=-1)
    return Tile(pixels, NO_STROKES if thickest > UNEVEN * usual else "")


def _ink(image: Image.Image) -> np.ndarray:
    """Returns the share of ink in each pixel, float (height, width) 0 to 1, for any colours and any light.

    Paper is a smooth surface through the pixels of the border. Ink differs from it in one direction of colour.
    """
    grey, alpha = np.asarray(image.convert("L"), float), np.asarray(image.getchannel("A"), float)
    dark = np.average(grey, weights=alpha + 1e-9) < 128
    pixels = np.asarray(put_on_paper(image, "white" if dark else "black"), float)
    difference = pixels - _paper(pixels)
    distance = np.linalg.norm(difference, axis=-1)
    strong = difference[distance >= 0.7 * _peak(distance)].mean(axis=0)
    ink = difference @ (strong / max(np.linalg.norm(strong), 1e-9))
    noise = 1.4826 * np.median(np.abs(ink[_ring(ink.shape)]))
    full = _peak(ink)
    if full < max(FAINTEST, 5 * noise):
        raise DataError(EMPTY if full < FAINTEST else NOISY)
    full = float(np.median(ink[ink > full / 2]))
    least = max(2.5 * noise, 0.1 * full)
    return np.clip((ink - least) / max(full - least, 1e-9), 0, 1)


def _peak(values: np.ndarray) -> float:
    """Returns the largest value but for 0.1% of the pixels, which may be reflections. A digit covers 1% or more."""
    return float(np.partition(values, -max(1, values.size // 1000), axis=None)[-max(1, values.size // 1000)])


def _paper(pixels: np.ndarray) -> np.ndarray:
    """Returns the background, a quadratic surface through most of the border: float (height, width, channels)."""
    height, width, _ = pixels.shape
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(rows), rows, columns, rows**2, rows * columns, columns**2], axis=-1)
    ring = _ring((height, width))
    basis, values = terms[ring], pixels[ring]
    surface = np.zeros((6, pixels.shape[-1]))
    surface[0] = np.median(values, axis=0)
    for _ in range(6):  # the digit may reach into the border: leave out the worst third
        distance = np.linalg.norm(values - basis @ surface, axis=-1)
        kept = distance <= np.quantile(distance, 0.66)
        surface = np.linalg.lstsq(basis[kept], values[kept], rcond=None)[0]
    return terms @ surface


def _ring(shape: tuple[int, ...]) -> np.ndarray:
    """Returns a mask of the border, a tenth of each side: bool (height, width)."""
    inside = np.zeros(shape, bool)
    height, width = (max(1, round(side / 10)) for side in shape)
    inside[height:-height, width:-width] = True
    return ~inside


def _remove_specks(ink: np.ndarray) -> np.ndarray:
    """Removes specks, and shapes that touch the edge if another one does not."""
    found, count = ndimage.label(ink > 0.4, np.ones((3, 3)))
    if not count:
        raise DataError(EMPTY)
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    sizes[0] = 0
    at_edge = np.zeros(count + 1, bool)
    at_edge[np.unique(np.concatenate([found[0], found[-1], found[:, 0], found[:, -1]]))] = True
    free = sizes * ~at_edge
    candidates = free if free.max() >= 0.1 * sizes.max() else sizes
    kept = np.flatnonzero(candidates >= 0.04 * candidates.max())
    near = ndimage.binary_dilation(np.isin(found, kept[kept > 0]), iterations=2)
    return ink * near


def _crop(ink: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero((ink > 0.25).any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _scale(ink: np.ndarray, longest: float) -> np.ndarray:
    """Scales the longer side to `longest` pixels and keeps the proportions."""
    factor = longest / max(ink.shape)
    height, width = (max(1, round(side * factor)) for side in ink.shape)
    how = Image.Resampling.BOX if factor < 0.5 else Image.Resampling.BICUBIC
    return np.clip(np.asarray(Image.fromarray(ink.astype(np.float32)).resize((width, height), how), float), 0, 1)


def _normalize_thickness(ink: np.ndarray, thickness: float) -> np.ndarray:
    """Makes strokes of this thickness thicker or thinner, to be like those of MNIST."""
    radius = round((np.clip(thickness, FINE * THINNEST, FINE * THICKEST) - thickness) / 2)
    if not radius:
        return ink
    rows, columns = np.ogrid[-abs(radius) : abs(radius) + 1, -abs(radius) : abs(radius) + 1]
    disc = rows**2 + columns**2 <= radius**2
    change = ndimage.grey_dilation if radius > 0 else ndimage.grey_erosion
    return change(np.pad(ink, max(radius, 0)), footprint=disc)


def _thickness(ink: np.ndarray) -> tuple[float, float]:
    """Returns the thickness of the strokes in pixels, median and largest: twice the distance from middle line to paper.

    Both are 1 if there are no strokes.
    """
    depth = ndimage.distance_transform_edt(ink > 0.5)
    middle = (depth == ndimage.maximum_filter(depth, 3)) & (depth > 0)
    if not middle.any():
        return 1.0, 1.0
    return 2 * float(np.median(depth[middle])) - 1, 2 * float(depth.max()) - 1


RECIPES: dict[Preparation, Callable[[Image.Image, tuple[int, int, int]], Tile]] = {
    "mnist": partial(_centre_digit, box=20 / 28),
    "digits": partial(_centre_digit, box=1.0),
    "resize": _resize,
    "pad": partial(_resize, fit="pad"),
    "crop": partial(_resize, fit="crop"),
}
