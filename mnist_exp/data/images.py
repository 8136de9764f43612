"""Reads single image files and resizes images to the shape of the training images."""

import warnings
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import Image, ImageOps

from mnist_exp.errors import DataError, Problem

# How an image gets another shape: whole with white borders, cut on two sides, or without regard to its proportions.
Fit = Literal["pad", "crop", "stretch"]

# Pillow clips these modes of more than 8 bits to 0-255. The numbers are the usual highest values of each mode: an image
# is scaled by the first that covers it. If none does, it is scaled from its lowest to its highest value.
RANGES = {
    **dict.fromkeys(("I;16", "I;16L", "I;16B", "I;16N"), (65535,)),
    "I": (255, 65535),
    "F": (1, 255, 65535),
}


def read_image(source: Path | IO[bytes], name: str) -> Image.Image:
    """Reads an image file as RGBA, upright, with 8 bits per channel. name: for errors.

    Raises DataError if the file is not an image, is damaged, or has more pixels than Pillow considers safe.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about damage that does not stop Pillow
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source) as opened:
                image = ImageOps.exif_transpose(opened)
            return to_8_bit(image, name).convert("RGBA")
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, TypeError and more for a damaged file
        rule = f"is not a readable image ({error})"
        raise DataError(Problem(name, rule, remedy="repair, shrink or remove it")) from error


def to_8_bit(image: Image.Image, name: str) -> Image.Image:
    """Returns the image with 8 bits per channel. Raises DataError for values that are not finite."""
    if image.mode not in RANGES:
        return image
    pixels = np.asarray(image, dtype=np.float64)
    low, high = pixels.min(), pixels.max()
    if not np.isfinite(high - low):
        problem = Problem(f"{name}: pixels", "must be finite numbers", f"{low} to {high}", "repair or remove the file")
        raise DataError(problem)
    if top := next((top for top in RANGES[image.mode] if low >= 0 and high <= top), None):
        low, high = 0, top
    return Image.fromarray(np.rint((pixels - low) * (255 / ((high - low) or 1))).astype(np.uint8))


def put_on_paper(image: Image.Image, colour: str) -> Image.Image:
    """Returns an RGBA image as RGB, with this colour behind its transparent pixels."""
    return Image.alpha_composite(Image.new("RGBA", image.size, colour), image).convert("RGB")


def resize_image(image: Image.Image, shape: tuple[int, int, int], fit: Fit = "stretch") -> np.ndarray:
    """Resizes an RGBA image to uint8 (height, width, channels). Transparent pixels become white."""
    height, width, channels = shape
    flat = put_on_paper(image, "white").convert("L" if channels == 1 else "RGB")
    size, how = (width, height), Image.Resampling.BILINEAR
    if fit == "pad":
        small = ImageOps.pad(flat, size, how, "white")
    elif fit == "crop":
        small = ImageOps.fit(flat, size, how)
    else:
        small = flat.resize(size, how)
    return np.asarray(small).reshape(shape)
