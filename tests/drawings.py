"""Digits as people draw, print and photograph them: fonts and pen strokes in many conventions, drawn from a seed.

python tests/drawings.py FOLDER        writes them as PNG, label first in the name

Made before the preparation of images was written, and not changed for it.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SEED, COUNT = 20261121, 400
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Italic",
    "STIXGeneral", "STIXGeneralItalic", "cmr10", "cmss10",
)  # fmt: skip

Point = tuple[float, float]


def arc(x: float, y: float, rx: float, ry: float, begin: float, end: float, steps: int = 24) -> list[Point]:
    """Points on an ellipse, angles in degrees, clockwise from the right since y goes down."""
    angles = np.radians(np.linspace(begin, end, steps))
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


# Ways to write each digit with a pen: strokes in a box of 1 x 1, y downwards.
WRITTEN: dict[int, list[list[list[Point]]]] = {
    0: [[arc(0.5, 0.5, 0.3, 0.45, -90, 275)], [arc(0.5, 0.5, 0.22, 0.45, -60, 300)]],
    1: [[[(0.5, 0.05), (0.5, 0.95)]], [[(0.32, 0.28), (0.55, 0.05), (0.55, 0.95)]], [[(0.6, 0.05), (0.42, 0.95)]]],
    2: [
        [[*arc(0.5, 0.3, 0.27, 0.25, -170, 40), (0.2, 0.93), (0.82, 0.93)]],
        [[*arc(0.5, 0.28, 0.25, 0.22, -150, 60), (0.25, 0.85), *arc(0.32, 0.83, 0.1, 0.08, 160, 380), (0.8, 0.92)]],
    ],
    3: [
        [[*arc(0.47, 0.27, 0.25, 0.22, -150, 80), *arc(0.47, 0.71, 0.29, 0.23, -80, 150)]],
        [[(0.22, 0.07), (0.75, 0.07), (0.48, 0.42), *arc(0.48, 0.68, 0.27, 0.26, -80, 145)]],
    ],
    4: [
        [[(0.3, 0.05), (0.2, 0.55), (0.8, 0.55)], [(0.65, 0.25), (0.62, 0.95)]],
        [[(0.62, 0.95), (0.62, 0.05), (0.15, 0.65), (0.85, 0.65)]],
    ],
    5: [
        [[(0.75, 0.07), (0.3, 0.07), (0.27, 0.45), *arc(0.47, 0.67, 0.28, 0.26, -110, 140)]],
        [[(0.3, 0.1), (0.28, 0.45), *arc(0.45, 0.68, 0.27, 0.25, -105, 150)], [(0.3, 0.1), (0.78, 0.08)]],
    ],
    6: [
        [[(0.65, 0.05), *arc(0.62, 0.6, 0.36, 0.5, -125, -180, 12), *arc(0.5, 0.7, 0.25, 0.23, 180, -170)]],
        [[*arc(0.75, 0.65, 0.52, 0.6, -115, -185, 16), *arc(0.48, 0.72, 0.24, 0.2, 160, -180)]],
    ],
    7: [
        [[(0.2, 0.08), (0.8, 0.08), (0.42, 0.95)]],
        [[(0.2, 0.08), (0.8, 0.08), (0.42, 0.95)], [(0.35, 0.52), (0.72, 0.52)]],
        [[(0.2, 0.2), (0.2, 0.08), (0.8, 0.08), (0.5, 0.5), (0.45, 0.95)]],
    ],
    8: [
        [[*arc(0.5, 0.27, 0.2, 0.2, 90, -270), *arc(0.5, 0.72, 0.26, 0.24, -90, 270)]],
        [[*arc(0.5, 0.28, 0.2, 0.21, -30, -250), *arc(0.5, 0.72, 0.24, 0.22, -60, 260), (0.66, 0.18)]],
    ],
    9: [
        [[*arc(0.5, 0.3, 0.24, 0.23, 0, -360), (0.74, 0.3), (0.68, 0.95)]],
        [[*arc(0.48, 0.3, 0.22, 0.22, -20, -370), (0.72, 0.3), *arc(0.42, 0.6, 0.3, 0.35, 0, 110, 12)]],
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """An image, any mode and size, of one digit; convention: what is unusual about it."""

    image: Image.Image
    label: int
    convention: str


def drawings(count: int = COUNT, seed: int = SEED) -> Iterator[Drawing]:
    """As many digits, each 0 to 9 in turn, in every convention in turn."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        label, name = number % 10, list(CONVENTIONS)[(number // 10) % len(CONVENTIONS)]
        yield Drawing(CONVENTIONS[name](rng, label), label, name)


def _ink(rng: np.random.Generator, label: int) -> np.ndarray:
    """Written or printed: float (height, width), 0 paper to 1 ink."""
    return _written(rng, label) if rng.random() < 0.6 else _printed(rng, label)


def _written(
    rng: np.random.Generator,
    label: int,
    thickness: tuple[float, float] = (0.05, 0.13),
    side: int = 320,
) -> np.ndarray:
    """A pen's strokes, as _ink: shaky, slanted, of a thickness that is a share of the side."""
    strokes = WRITTEN[label][rng.integers(len(WRITTEN[label]))]
    slant, turn = rng.uniform(-0.18, 0.18), math.radians(rng.uniform(-8, 8))
    wide, tall = rng.uniform(0.75, 1.1), 1.0
    waves = rng.normal(0, 0.012, (2, 3))
    width = max(rng.uniform(*thickness) * side, 2)

    def moved(point: Point) -> Point:
        x, y = (point[0] - 0.5) * wide, (point[1] - 0.5) * tall
        x -= slant * y
        x, y = (
            x * math.cos(turn) - y * math.sin(turn),
            x * math.sin(turn) + y * math.cos(turn),
        )
        x += sum(w * math.sin(2 * math.pi * (k + 1) * y) for k, w in enumerate(waves[0]))
        y += sum(w * math.sin(2 * math.pi * (k + 1) * x) for k, w in enumerate(waves[1]))
        return (0.5 + 0.7 * x) * side, (0.5 + 0.7 * y) * side

    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        points = [moved(point) for point in stroke]
        pen.line(points, fill=255, width=round(width), joint="curve")
        for x, y in points:
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return _array(image.filter(ImageFilter.GaussianBlur(side / 200)))


def _printed(rng: np.random.Generator, label: int, side: int = 320) -> np.ndarray:
    """A digit of a font, as _ink."""
    name = FONTS[rng.integers(len(FONTS))]
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    image = Image.new("L", (side, side))
    font = ImageFont.truetype(str(path), round(side * 0.75))
    ImageDraw.Draw(image).text((side / 2, side / 2), str(label), fill=255, font=font, anchor="mm")
    return _array(image.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC))


def _placed(ink: np.ndarray, size: tuple[int, int], scale: float, at: Point) -> np.ndarray:
    """The ink on a page of this size (height, width), its box's longer side `scale` of the shorter side of the page."""
    rows, columns = np.nonzero(ink > 0.1)
    box = Image.fromarray((255 * ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]).astype("uint8"))
    factor = scale * min(size) / max(box.size)
    box = box.resize(
        (max(1, round(box.width * factor)), max(1, round(box.height * factor))),
        Image.Resampling.LANCZOS,
    )
    page = Image.new("L", (size[1], size[0]))
    page.paste(
        box,
        (round(at[0] * (size[1] - box.width)), round(at[1] * (size[0] - box.height))),
    )
    return _array(page)


def _array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float) / 255


def _mixed(page: np.ndarray, paper: Sequence[float] | np.ndarray, ink: Sequence[float]) -> Image.Image:
    """Ink on paper, colours 0 to 255."""
    share = page[..., None]
    return Image.fromarray(np.clip(share * np.asarray(ink) + (1 - share) * np.asarray(paper), 0, 255).astype("uint8"))


def scanned(rng: np.random.Generator, label: int) -> Image.Image:
    """Black on white, with a margin, of some resolution."""
    side = int(rng.integers(60, 400))
    return _mixed(
        _placed(_ink(rng, label), (side, side), rng.uniform(0.5, 0.85), (0.5, 0.5)),
        (255,) * 3,
        (0,) * 3,
    ).convert("L")


def screen(rng: np.random.Generator, label: int) -> Image.Image:
    """White on black, as MNIST has it, larger."""
    side = int(rng.integers(40, 300))
    return _mixed(
        _placed(_ink(rng, label), (side, side), rng.uniform(0.5, 0.85), (0.5, 0.5)),
        (0,) * 3,
        (255,) * 3,
    ).convert("L")


def coloured(rng: np.random.Generator, label: int) -> Image.Image:
    """A dark colour on a light one, or the other way round."""
    dark, light = rng.uniform(0, 90, 3), rng.uniform(170, 255, 3)
    paper, pen = (light, dark) if rng.random() < 0.5 else (dark, light)
    return _mixed(
        _placed(_ink(rng, label), (200, 200), rng.uniform(0.5, 0.8), (0.5, 0.5)),
        paper,
        pen,
    )


def off_centre(rng: np.random.Generator, label: int) -> Image.Image:
    """Small, in a corner of a wide or tall page."""
    size = (int(rng.integers(150, 500)), int(rng.integers(150, 500)))
    at = rng.uniform(0.03, 0.97), rng.uniform(0.03, 0.97)
    return _mixed(
        _placed(_ink(rng, label), size, rng.uniform(0.22, 0.45), at),
        (250,) * 3,
        (20, 20, 60),
    )


def thin(rng: np.random.Generator, label: int) -> Image.Image:
    """A hard pencil on a large sheet: fine lines, and grey."""
    page = _placed(
        _written(rng, label, (0.008, 0.03)),
        (280, 280),
        rng.uniform(0.6, 0.8),
        (0.5, 0.5),
    )
    return _mixed(page, (255,) * 3, (rng.uniform(40, 110),) * 3)


def transparent(rng: np.random.Generator, label: int) -> Image.Image:
    """Ink on nothing: the shape is in the alpha channel alone, the colour is black or white."""
    alpha = (255 * _placed(_ink(rng, label), (180, 180), rng.uniform(0.5, 0.85), (0.5, 0.5))).astype("uint8")
    image = Image.new("RGBA", (180, 180), (0, 0, 0, 0) if rng.random() < 0.5 else (255, 255, 255, 0))
    image.putalpha(Image.fromarray(alpha))
    return image


def noisy(rng: np.random.Generator, label: int) -> Image.Image:
    """A bad camera in bad light: noise over everything."""
    page = _placed(_ink(rng, label), (160, 160), rng.uniform(0.5, 0.8), (0.5, 0.5))
    grey = 225 - 190 * page + rng.normal(0, rng.uniform(6, 16), page.shape)
    return Image.fromarray(np.clip(grey, 0, 255).astype("uint8"))


def photo(rng: np.random.Generator, label: int) -> Image.Image:
    """Paper under a lamp: light that falls off to one side, a little blur and noise, warm white."""
    size = (int(rng.integers(220, 420)), int(rng.integers(220, 420)))
    page = _placed(
        _ink(rng, label),
        size,
        rng.uniform(0.4, 0.7),
        (rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7)),
    )
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    angle = rng.uniform(0, 2 * math.pi)
    slope = (columns / size[1] - 0.5) * math.cos(angle) + (rows / size[0] - 0.5) * math.sin(angle)
    light = 1 - rng.uniform(0.2, 0.55) * (slope + 0.5)
    paper = light[..., None] * np.array((245, 238, 222)) + rng.normal(0, 4, (*size, 1))
    picture = _mixed(page, paper, rng.uniform(15, 60, 3))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.6)))


CONVENTIONS = {
    draw.__name__: draw for draw in (scanned, screen, coloured, off_centre, thin, transparent, noisy, photo)
}  # fmt: skip


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, drawing in enumerate(drawings()):
        drawing.image.save(folder / f"{drawing.label}-{number:03d}-{drawing.convention}.png")
