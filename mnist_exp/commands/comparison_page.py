"""Runs compared in pictures: curves over each other, confusion matrices and their difference; alone or on a page."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix

from mnist_exp.evaluation.plots import (
    BLUE,
    DPI,
    INK,
    NUMBERED,
    ORANGE,
    RED,
    draw_matrix,
    new_figure,
    remove_frame,
    save,
    write_numbers,
)
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, read_metric_history

COLOURS = (BLUE, ORANGE, "#4f9d69", RED, "#7b5aa6", "#8c6d46", "#d16ba5", "#4ba3a3")
MATRICES = 3  # confusion matrices that stand side by side


def write_figure(path: Path, store: Store, runs: Sequence[StoredRun]) -> None:
    """Curves above, matrices below, as an image of the kind the path names."""
    top, below = _curves(store, runs), _matrices(runs)
    pictures = [_png(figure) for figure in (top, below) if figure]
    _stacked(pictures).savefig(path, dpi=DPI)


def write_html(path: Path, store: Store, runs: Sequence[StoredRun], rows: Sequence[Mapping[str, Any]]) -> None:
    """One file that needs nothing beside it."""
    figures = [base64.b64encode(_png(figure)).decode() for figure in (_curves(store, runs), _matrices(runs)) if figure]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mnist_exp.commands", "."), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("comparison_page.html").render(rows=rows, columns=list(rows[0]), figures=figures)
    path.write_text(page, encoding="utf-8")


def _curves(store: Store, runs: Sequence[StoredRun]) -> Figure:
    """Loss and accuracy on validation, epoch by epoch."""
    figure = new_figure(10.5, 4.4)
    panels = figure.subplots(1, 2)
    for axes, name in zip(panels, ("loss", "accuracy"), strict=True):
        for colour, run in zip(COLOURS, runs, strict=False):
            points = _history(store, run.id, f"val/{name}")
            marker = "o" if len(points) <= 30 else ""
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3.5, label=run.label)
        axes.set_title(f"Validation {name}", loc="left", size=12, weight="bold", color=INK)
        axes.set_xlabel("epoch", size=9, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y", color="#eeeeee", linewidth=0.6)
        remove_frame(axes)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    return figure


def _matrices(runs: Sequence[StoredRun]) -> Figure | None:
    """Confusion matrices on validation side by side, and for the first two what the second changed."""
    shown = [run for run in runs if run.predictions and "val_labels" in run.predictions][:MATRICES]
    if not shown:
        return None
    counts = [_confusion(run.predictions) for run in shown if run.predictions]
    compared = len(counts) > 1 and counts[0].shape == counts[1].shape
    side = min(max(0.4 * len(counts[0]), 2.6), 5)
    panels = len(counts) + compared
    figure = new_figure(panels * (side + 0.6) + 0.7, side + 1.4)
    axes = figure.subplots(1, panels, squeeze=False).ravel()
    for place, run, found in zip(axes, shown, counts, strict=False):
        _panel(place, found, run.label)
    if compared:
        _difference(axes[-1], counts[1] - counts[0])
    figure.suptitle("Validation: true classes in rows, predicted in columns", x=0.01, ha="left", size=12, weight="bold")
    return figure


def _panel(axes: Any, counts: np.ndarray, title: str) -> None:
    image = draw_matrix(axes, counts, [str(number) for number in range(len(counts))])
    axes.set_title(title, size=10, color=INK, parse_math=False)
    if len(counts) <= NUMBERED:
        write_numbers(axes, image, str, size=8)


def _difference(axes: Any, change: np.ndarray) -> None:
    """More in the second run blue, fewer red; the diagonal are right answers."""
    most = max(int(np.abs(change).max()), 1)
    draw_matrix(axes, np.zeros_like(change), [str(number) for number in range(len(change))])
    axes.imshow(change, cmap=colormaps["RdBu"], vmin=-most, vmax=most)
    axes.set_title("second minus first", size=10, color=INK)
    for row, column in np.argwhere(change) if len(change) <= NUMBERED else ():
        colour = "white" if abs(change[row, column]) > 0.6 * most else INK
        text = axes.text(column, row, f"{change[row, column]:+d}", size=8, color=colour, ha="center", va="center")
        text.set_in_layout(False)


def _confusion(predictions: Mapping[str, np.ndarray]) -> np.ndarray:
    classes = range(predictions["val_probabilities"].shape[1])
    return np.asarray(confusion_matrix(predictions["val_labels"], predictions["val_predicted"], labels=classes))


def _history(store: Store, run_id: str, key: str) -> list[tuple[int, float]]:
    # The first value of a step: the final evaluation, without label smoothing, is no part of the curve.
    first = dict(reversed(read_metric_history(store, run_id, key)))
    return sorted(first.items()) or [(0, float("nan"))]


def _png(figure: Figure) -> bytes:
    image = io.BytesIO()
    save(figure, image)
    return image.getvalue()


def _stacked(pictures: Sequence[bytes]) -> Figure:
    """Pictures below each other, none resized."""
    from matplotlib.image import imread

    arrays = [imread(io.BytesIO(picture)) for picture in pictures]
    width, height = max(array.shape[1] for array in arrays), sum(array.shape[0] for array in arrays)
    figure, y = Figure((width / DPI, height / DPI), dpi=DPI), height
    for array in arrays:
        y -= array.shape[0]
        figure.figimage(array, 0, y)
    return figure
