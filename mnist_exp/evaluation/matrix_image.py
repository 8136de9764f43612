"""A confusion matrix as a small picture, drawn in a few milliseconds: for the trials of a sweep."""

import matplotlib
import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.evaluation.plots import INK, NUMBERED, shorten

COLOURS = 64  # in the file, which then has a third of the size
SIDE, MARGIN = 440, 12  # pixels: of the matrix, about, and around it
LETTERS = 14  # most letters of a class name
FONT = matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf"


def confusion_image(evaluation: Evaluation, title: str) -> Image.Image:
    """Draws the counts: true classes in rows, predicted ones in columns. The colour is the square root of the count."""
    counts, names = evaluation.confusion, [shorten(name, LETTERS) for name in evaluation.class_names]
    cell = max(SIDE // len(counts), 2)
    side, size = cell * len(counts), min(max(cell // 3, 8), 14)
    font, heading = (ImageFont.truetype(FONT, points) for points in (size, 15))
    room = int(max(font.getlength(name) for name in names)) + MARGIN
    left, top = room + 24, 42
    picture = Image.new("RGB", (left + side + MARGIN, top + side + room + 24), "white")
    shades = np.sqrt(counts / max(counts.max(), 1))
    colours = np.round(255 * colormaps["Blues"](shades)[..., :3]).astype(np.uint8)
    picture.paste(Image.fromarray(colours.repeat(cell, axis=0).repeat(cell, axis=1)), (left, top))
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, 20), title, INK, heading, anchor="lm")
    step = -(-3 * size // (2 * cell))  # names of small cells would overlap
    for place in range(0, len(counts), step):
        along = cell * place + cell // 2
        draw.text((left - 6, top + along), names[place], INK, font, anchor="rm")
        _write_upwards(picture, (left + along, top + side + 6), names[place], font)
    draw.text((left + side // 2, picture.height - 10), "predicted", INK, font, anchor="mm")
    _write_upwards(picture, (12, top + side // 2 - int(font.getlength("true")) // 2), "true", font)
    if len(counts) <= NUMBERED:
        for row, column in np.argwhere(counts):
            colour = "white" if shades[row, column] > 0.6 else INK
            middle = left + cell * column + cell // 2, top + cell * row + cell // 2
            draw.text(middle, str(counts[row, column]), colour, font, anchor="mm")
    return picture.quantize(COLOURS)


def _write_upwards(picture: Image.Image, place: tuple[int, int], words: str, font: ImageFont.FreeTypeFont) -> None:
    """Writes words of one letter as they are, others from bottom to top. place: the middle of their upper edge."""
    if len(words) == 1:
        ImageDraw.Draw(picture).text(place, words, INK, font, anchor="ma")
        return
    length, height = int(font.getlength(words)) + 1, int(font.size * 1.4)
    strip = Image.new("L", (length, height))
    ImageDraw.Draw(strip).text((0, height // 2), words, 255, font, anchor="lm")
    turned = strip.rotate(90, expand=True)
    picture.paste(INK, (place[0] - height // 2, place[1]), turned)
