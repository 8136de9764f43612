"""Axes, colours and matrices that figures of runs and reports share."""

import math
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

INK, MUTED, LINE = "#222222", "#6b6b6b", "#d9d9d9"

BLUE, ORANGE, RED = "#2f6db0", "#e08a1e", "#c62828"

NUMBERED = 20  # classes up to which a confusion matrix holds numbers; beyond, its cells are too small to read

NAMED = 40  # class names that fit beside a confusion matrix

AXIS_LETTERS = 24  # letters of a class name beside an axis


def short(name: str, limit: int) -> str:
    """The name, its middle left out where it is longer than this."""
    half = (limit - 1) // 2
    return name if len(name) <= limit else f"{name[: limit - 1 - half]}…{name[-half:]}"


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure and axes that fill it, invisible, in inches from the top left corner."""
    figure = Figure((width, height), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure, axes


def laid_out(width: float, height: float) -> Figure:
    """A figure whose axes make room for their labels."""
    return Figure((width, height), dpi=DPI, layout=ConstrainedLayoutEngine(compress=True, w_pad=0.12, h_pad=0.08))


def save(figure: Figure, to: Path | IO[bytes]) -> None:
    """As PNG. The layout is made first and then stays, since savefig draws a figure that has one to make twice."""
    if layout := figure.get_layout_engine():
        layout.execute(figure)
        figure.set_layout_engine(None)
    figure.savefig(to, dpi=DPI, format="png")


def matrix(axes: Axes, values: np.ndarray, class_names: Sequence[str]) -> AxesImage:
    """A panel of squares, coloured by the square root of their value so that rare confusions show."""
    ticks = range(0, len(class_names), math.ceil(len(class_names) / NAMED))
    names = [short(class_names[tick], AXIS_LETTERS) for tick in ticks]
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_xticks(ticks, names, parse_math=False, **(turned if max(map(len, names)) > 3 else {}))
    axes.set_xlabel("predicted", size=10, color=INK)
    axes.set_ylabel("true", size=10, color=INK)
    plain(axes)
    axes.tick_params(length=0)
    return axes.imshow(values, cmap=colormaps["Blues"], norm=PowerNorm(0.5, 0, max(float(values.max()), 1)))


def numbers(axes: Axes, image: AxesImage, words: Callable[[Any], str], size: float) -> None:
    """Every value but 0, dark on light and light on dark."""
    values = np.asarray(image.get_array())
    dark = np.asarray(image.norm(values)) > 0.6
    for row, column in np.argwhere(values > 0):
        colour = "white" if dark[row, column] else INK
        text = axes.text(column, row, words(values[row, column]), size=size, color=colour, ha="center", va="center")
        text.set_in_layout(False)  # it lies within its square, and measuring hundreds takes long


def plain(axes: Axes) -> None:
    """No frame but the lower and left line, and quiet ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(LINE)
    axes.tick_params(labelsize=9, color=LINE, labelcolor=INK)
