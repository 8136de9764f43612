"""Single images: read whatever they are, and brought to the shape of the training images."""

import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from mnist_exp.errors import DataError

# Pillow's modes of more than 8 bits, which it would clip to 0-255, and the highest values they usually have: the first
# that covers an image counts; an image beyond them is stretched from its lowest to its highest value.
RANGES = {
    **dict.fromkeys(("I;16", "I;16L", "I;16B", "I;16N"), (65535,)),
    "I": (255, 65535),
    "F": (1, 255, 65535),
}


def read_image(source: Path | IO[bytes], name: str) -> Image.Image:
    """An image file as RGBA, upright, 8 bits a channel; name: for errors.

    Raises DataError for what is no image, damaged, or unpacks to more pixels than Pillow takes for harmless.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of damage that Pillow can read past
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source) as opened:
                image = ImageOps.exif_transpose(opened)
            return eight_bits(image, name).convert("RGBA")
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders let anything out of a damaged file: OSError, SyntaxError, TypeError
        raise DataError(f"{name}: not a readable image ({error}); repair, shrink or remove it") from error


def eight_bits(image: Image.Image, name: str) -> Image.Image:
    """The image with 8 bits a channel. Raises DataError for values that are not finite."""
    if image.mode not in RANGES:
        return image
    pixels = np.asarray(image, dtype=np.float64)
    low, high = pixels.min(), pixels.max()
    if not np.isfinite(high - low):
        raise DataError(f"{name}: pixels must be finite numbers, but got {low} to {high}; repair or remove it")
    if top := next((top for top in RANGES[image.mode] if low >= 0 and high <= top), None):
        low, high = 0, top
    return Image.fromarray(np.rint((pixels - low) * (255 / ((high - low) or 1))).astype(np.uint8))


def fitted(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """An RGBA image as uint8 `shape`, (height, width, channels): resized, grey or colour, transparent parts white."""
    height, width, channels = shape
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    small = flat.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small).reshape(shape)
