"""Compares runs in pictures: curves in one plot, confusion matrices and their difference, as a figure or on a page."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix

from mnist_exp.evaluation import plots
from mnist_exp.evaluation.predictions import Predictions
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, read_metric_history

COLOURS = (plots.BLUE, plots.ORANGE, "#4f9d69", plots.RED, "#7b5aa6", "#8c6d46", "#d16ba5", "#4ba3a3")
MATRICES = 3  # most confusion matrices side by side

Matrix = tuple[str, np.ndarray]  # the label of a run, and its confusion matrix
Part = tuple[tuple[float, float], Callable[[FigureBase], None]]  # size in inches, and what draws it


def write_figure(path: Path, store: Store, runs: Sequence[StoredRun]) -> None:
    """Draws curves above and matrices below. The suffix of the path chooses the format of the image."""
    parts = _parts(store, runs)
    heights = [height for (_, height), _ in parts]
    figure = plots.new_figure(max(width for (width, _), _ in parts), sum(heights))
    subfigures = figure.subfigures(len(parts), 1, squeeze=False, height_ratios=heights).ravel()
    for subfigure, (_, draw) in zip(subfigures, parts, strict=True):
        draw(subfigure)
    figure.savefig(path, dpi=plots.DPI)


def write_html(path: Path, store: Store, runs: Sequence[StoredRun], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a page that needs no other file."""
    figures = []
    for size, draw in _parts(store, runs):
        figure = plots.new_figure(*size)
        draw(figure)
        image = io.BytesIO()
        plots.save(figure, image)
        figures.append(base64.b64encode(image.getvalue()).decode())
    source = Path(__file__).with_suffix(".html").read_text("utf-8")
    template = jinja2.Template(source, autoescape=True, trim_blocks=True)
    path.write_text(template.render(rows=rows, columns=list(rows[0]), figures=figures), encoding="utf-8")


def _parts(store: Store, runs: Sequence[StoredRun]) -> list[Part]:
    """Returns the curves and, if there are predictions, the matrices."""
    parts: list[Part] = [((10.5, 4.4), partial(_draw_curves, store=store, runs=runs))]
    shown = [(run.label, run.predictions) for run in runs if run.predictions and "val_labels" in run.predictions]
    if shown:
        matrices = [(label, _confusion(predictions)) for label, predictions in shown[:MATRICES]]
        side = min(max(0.4 * max(len(counts) for _, counts in matrices), 2.6), 5)
        panels = len(matrices) + _is_comparable(matrices)
        parts.append(((panels * (side + 0.6) + 0.7, side + 1.4), partial(_draw_matrices, matrices=matrices)))
    return parts


def _draw_curves(figure: FigureBase, store: Store, runs: Sequence[StoredRun]) -> None:
    """Draws loss and accuracy on validation by epoch."""
    panels = figure.subplots(1, 2)
    for axes, name in zip(panels, ("loss", "accuracy"), strict=True):
        for colour, run in zip(COLOURS, runs, strict=False):
            # The first value of an epoch: the final evaluation, without label smoothing, is no part of the curve.
            by_step = dict(reversed(read_metric_history(store, run.id, f"val/{name}")))
            points = sorted(by_step.items()) or [(0, math.nan)]
            marker = "o" if len(points) <= 30 else ""
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3.5, label=run.label)
        axes.set_title(f"Validation {name}", loc="left", size=12, weight="bold", color=plots.INK)
        axes.set_xlabel("epoch", size=9, color=plots.INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y", color="#eeeeee", linewidth=0.6)
        plots.remove_frame(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _draw_matrices(figure: FigureBase, matrices: Sequence[Matrix]) -> None:
    """Draws confusion matrices on validation side by side and, for the first two, their difference."""
    compared = _is_comparable(matrices)
    axes = figure.subplots(1, len(matrices) + compared, squeeze=False).ravel()
    for place, (label, counts) in zip(axes, matrices, strict=False):
        _panel(place, counts, label)
    if compared:
        _difference(axes[-1], matrices[1][1] - matrices[0][1])
    figure.suptitle("Validation: true classes in rows, predicted in columns", x=0.01, ha="left", size=12, weight="bold")


def _panel(axes: Any, counts: np.ndarray, title: str) -> None:
    image = plots.draw_matrix(axes, counts, [str(number) for number in range(len(counts))])
    axes.set_title(title, size=10, color=plots.INK, parse_math=False)
    if len(counts) <= plots.NUMBERED:
        plots.write_numbers(axes, image, str, size=8)


def _difference(axes: Any, change: np.ndarray) -> None:
    """Draws the difference: blue if the second run has more images, red if fewer. The diagonal is right answers."""
    most = max(int(np.abs(change).max()), 1)
    plots.draw_matrix(axes, np.zeros_like(change), [str(number) for number in range(len(change))])
    axes.imshow(change, cmap=colormaps["RdBu"], vmin=-most, vmax=most)
    axes.set_title("second minus first", size=10, color=plots.INK)
    for row, column in np.argwhere(change) if len(change) <= plots.NUMBERED else ():
        colour = "white" if abs(change[row, column]) > 0.6 * most else plots.INK
        text = axes.text(column, row, f"{change[row, column]:+d}", size=8, color=colour, ha="center", va="center")
        text.set_in_layout(False)


def _is_comparable(matrices: Sequence[Matrix]) -> bool:
    """Whether the first two runs have the same classes."""
    return len(matrices) > 1 and matrices[0][1].shape == matrices[1][1].shape


def _confusion(predictions: Predictions) -> np.ndarray:
    classes = range(predictions["val_probabilities"].shape[1])
    return confusion_matrix(predictions["val_labels"], predictions["val_predicted"], labels=classes)
