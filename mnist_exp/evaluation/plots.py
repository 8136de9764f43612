"""Axes, colours and matrices, shared by the figures of runs, comparisons and sweeps."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine

DPI = 120
COMPRESSION = 3  # of PNG files: half the time of the default, 6, and a tenth more bytes
INK, MUTED, LINE = "#222222", "#6b6b6b", "#d9d9d9"
BLUE, ORANGE, RED = "#2f6db0", "#e08a1e", "#c62828"

NUMBERED = 20  # most classes of a confusion matrix with numbers; the cells of a larger one are too small
NAMED = 40  # most class names beside a confusion matrix
AXIS_LETTERS = 24  # most letters of a class name beside an axis


def shorten(name: str, limit: int) -> str:
    """Returns the name with at most `limit` letters. The middle of a longer one is left out."""
    half = (limit - 1) // 2
    return name if len(name) <= limit else f"{name[: limit - 1 - half]}…{name[-half:]}"


def shorten_all(names: Sequence[str], limit: int) -> list[str]:
    """Returns the names with at most `limit` letters each; those that would be the same then stay whole."""
    short = [shorten(name, limit) for name in names]
    taken = Counter(short)
    return [label if taken[label] == 1 else name for name, label in zip(names, short, strict=True)]


def new_canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns a figure and invisible axes that fill it, with coordinates in inches from the top left corner."""
    figure = Figure((width, height), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def new_figure(width: float, height: float) -> Figure:
    """Returns a figure, width x height in inches, whose axes make room for their labels."""
    return Figure((width, height), dpi=DPI, layout=ConstrainedLayoutEngine(compress=True, w_pad=0.12, h_pad=0.08))


def save(figure: Figure, to: Path | IO[bytes]) -> None:
    """Saves the figure as PNG. Computes the layout first, because savefig would draw a figure with a layout twice."""
    if layout := figure.get_layout_engine():
        layout.execute(figure)
        figure.set_layout_engine(None)
    figure.savefig(to, dpi=DPI, format="png", pil_kwargs={"compress_level": COMPRESSION})


def draw_matrix(axes: Axes, values: np.ndarray, class_names: Sequence[str]) -> AxesImage:
    """Draws a matrix of squares. Their colour is the square root of the value, so that rare confusions are visible."""
    ticks = range(0, len(class_names), math.ceil(len(class_names) / NAMED))
    names = [shorten(class_names[tick], AXIS_LETTERS) for tick in ticks]
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_xticks(ticks, names, parse_math=False, **(turned if max(map(len, names)) > 3 else {}))
    axes.set_xlabel("predicted", size=10, color=INK)
    axes.set_ylabel("true", size=10, color=INK)
    remove_frame(axes)
    axes.tick_params(length=0)
    return axes.imshow(values, cmap=colormaps["Blues"], norm=PowerNorm(0.5, 0, max(float(values.max()), 1)))


def write_numbers(axes: Axes, image: AxesImage, words: Callable[[Any], str], size: float) -> None:
    """Writes every value but 0 into its square, dark on light and light on dark."""
    values = np.asarray(image.get_array())
    dark = np.asarray(image.norm(values)) > 0.6
    for row, column in np.argwhere(values > 0):
        colour = "white" if dark[row, column] else INK
        text = axes.text(column, row, words(values[row, column]), size=size, color=colour, ha="center", va="center")
        text.set_in_layout(False)  # it lies within its square, and the layout of hundreds takes long


def remove_frame(axes: Axes) -> None:
    """Removes the frame except for the lower and the left line, and makes the ticks less prominent."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(LINE)
    axes.tick_params(labelsize=9, color=LINE, labelcolor=INK)
