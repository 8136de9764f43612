"""Compares runs in pictures: curves in one plot, confusion matrices and their difference, as a figure or on a page."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix

from mnist_exp.commands.tables import split_by_data
from mnist_exp.evaluation import plots
from mnist_exp.evaluation.predictions import Predictions
from mnist_exp.evaluation.statistics import match_images
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, read_class_names, read_metric_history

COLOURS = (plots.BLUE, plots.ORANGE, "#4f9d69", plots.RED, "#7b5aa6", "#8c6d46", "#d16ba5", "#4ba3a3")
MATRICES = 3  # most confusion matrices side by side

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


def write_html(
    path: Path, store: Store, runs: Sequence[StoredRun], rows: Sequence[Mapping[str, str]], notes: Sequence[str]
) -> None:
    """Writes a page that needs no other file. rows: as text; a table for each value of `data`. notes: sentences."""
    figures = []
    for size, draw in _parts(store, runs):
        figure = plots.new_figure(*size)
        draw(figure)
        image = io.BytesIO()
        plots.save(figure, image)
        figures.append(base64.b64encode(image.getvalue()).decode())
    source = Path(__file__).with_suffix(".html").read_text("utf-8")
    template = jinja2.Template(source, autoescape=True, trim_blocks=True)
    page = template.render(count=len(rows), tables=split_by_data(rows), notes=notes, figures=figures)
    path.write_text(page, encoding="utf-8")


def _parts(store: Store, runs: Sequence[StoredRun]) -> list[Part]:
    """Returns the curves and, if there are predictions, the matrices."""
    parts: list[Part] = [((10.5, 4.4), partial(_draw_curves, store=store, runs=runs))]
    scored = [run for run in runs if run.predictions and "val_labels" in run.predictions]
    shown = [ScoredRun.read(store, run) for run in scored[:MATRICES]]
    if shown:
        side = min(max(0.4 * max(len(one.confusion()) for one in shown), 2.6), 5)
        change = Change.between(*shown[:2]) if len(shown) > 1 else None
        panels = len(shown) + (change is not None)
        draw = partial(_draw_matrices, shown=shown, change=change)
        parts.append(((panels * (side + 0.6) + 0.7, side + 1.4), draw))
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


def _draw_matrices(figure: FigureBase, shown: "Sequence[ScoredRun]", change: "Change | None") -> None:
    """Draws confusion matrices on validation side by side and, for the first two, their difference."""
    axes = figure.subplots(1, len(shown) + (change is not None), squeeze=False).ravel()
    for place, one in zip(axes, shown, strict=False):
        _panel(place, one)
    if change:
        _difference(axes[-1], change)
    elif len(shown) > 1:
        figure.supxlabel("no difference: the first two runs have other classes", size=9, color=plots.MUTED)
    figure.suptitle("Validation: true classes in rows, predicted in columns", x=0.01, ha="left", size=12, weight="bold")


def _panel(axes: Any, one: "ScoredRun") -> None:
    counts = one.confusion()
    image = plots.draw_matrix(axes, counts, one.class_names)
    axes.set_title(f"{one.label}\n{counts.sum():,} images", size=10, color=plots.INK, parse_math=False)
    if len(counts) <= plots.NUMBERED:
        plots.write_numbers(axes, image, str, size=8)


def _difference(axes: Any, change: "Change") -> None:
    """Draws the difference: blue if the second run has more images, red if fewer. The diagonal is right answers."""
    values = np.nan_to_num(change.values)  # a class without images has no difference
    most = max(float(np.abs(values).max()), 1)
    plots.draw_matrix(axes, np.zeros_like(values), change.class_names)
    axes.imshow(values, cmap=colormaps["RdBu"], vmin=-most, vmax=most)
    axes.set_title(f"second minus first\n{change.unit}", size=10, color=plots.INK)
    for row, column in np.argwhere(np.round(values)) if len(values) <= plots.NUMBERED else ():
        colour = "white" if abs(values[row, column]) > 0.6 * most else plots.INK
        text = axes.text(column, row, f"{values[row, column]:+.0f}", size=8, color=colour, ha="center", va="center")
        text.set_in_layout(False)


@dataclass(frozen=True)
class ScoredRun:
    """The validation images of a run, as it classified them."""

    label: str
    predictions: Predictions
    class_names: Sequence[str]

    @classmethod
    def read(cls, store: Store, run: StoredRun) -> "ScoredRun":
        """Reads the names of the classes of a run that has predictions."""
        assert run.predictions is not None
        return cls(run.label, run.predictions, read_class_names(store, run))

    def confusion(self, places: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Returns the confusion matrix of the images at these places, by default of all."""
        labels, predicted = self.predictions["val_labels"][places], self.predictions["val_predicted"][places]
        return confusion_matrix(labels, predicted, labels=range(len(self.class_names)))


@dataclass(frozen=True)
class Change:
    """The second confusion matrix minus the first. values: (classes, classes). unit: what the values are."""

    values: np.ndarray
    unit: str
    class_names: Sequence[str]

    @classmethod
    def between(cls, first: ScoredRun, second: ScoredRun) -> "Change | None":
        """Subtracts counts of the images that both runs scored; if there are none, shares of each true class.

        Returns None if the runs have other classes.
        """
        if tuple(first.class_names) != tuple(second.class_names):
            return None
        ours, theirs = match_images(first.predictions, second.predictions, "val")
        if len(ours):
            counts = second.confusion(theirs) - first.confusion(ours)
            return cls(counts, f"on the {len(ours):,} images that both scored", first.class_names)
        shares = _shares(second.confusion()) - _shares(first.confusion())
        return cls(100 * shares, "in percent of the true class: no shared images", first.class_names)


def _shares(counts: np.ndarray) -> np.ndarray:
    """Returns each row as shares of its sum, nan for a class without images."""
    images = counts.sum(axis=1, keepdims=True)
    return np.where(images, counts / np.maximum(images, 1), np.nan)
