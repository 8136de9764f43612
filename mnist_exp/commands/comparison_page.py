"""Compares runs in charts: curves, accuracy against parameters, confusion matrices and their difference."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from mnist_exp.commands.tables import split_by_data
from mnist_exp.evaluation.page import Chart, draw, draw_cells, draw_confusion, heading, render, specify
from mnist_exp.evaluation.plots import BLUE, INK, ORANGE, RED
from mnist_exp.evaluation.predictions import Predictions
from mnist_exp.evaluation.statistics import match_images
from mnist_exp.tracking import tags
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, read_class_names, read_metric_history
from mnist_exp.tracking.views import page_of_run

COLOURS = (BLUE, ORANGE, "#4f9d69", RED, "#7b5aa6", "#8c6d46", "#d16ba5", "#4ba3a3")
MATRICES = 3  # most confusion matrices side by side
WIDTH, HEIGHT = 390, 260  # of a panel, in pixels


def write_figure(path: Path, store: Store, runs: Sequence[StoredRun]) -> None:
    """Draws the charts, one below the other. The suffix of the path chooses the format of the picture."""
    charts = [chart.drawing.properties(title=heading(chart.title)) for chart in _charts(store, runs)]
    draw(path, specify(alt.vconcat(*charts, spacing=40).resolve_scale(color="independent")))


def write_html(
    path: Path, store: Store, runs: Sequence[StoredRun], rows: Sequence[Mapping[str, str]], notes: Sequence[str]
) -> None:
    """Writes a page that needs no other file. rows: as text; a table for each value of `data`. notes: sentences."""
    page = render(
        Path(__file__).with_suffix(".html"),
        list(_charts(store, runs)),
        count=len(runs),
        tables=split_by_data(rows),
        links={run.id[:8]: page_of_run(store, run.experiment_id, run.id) for run in runs},
        notes=notes,
    )
    path.write_text(page, encoding="utf-8")


def _charts(store: Store, runs: Sequence[StoredRun]) -> Iterator[Chart]:
    yield Chart("Curves", _draw_curves(store, runs), "Validation, by epoch.")
    if len({run.tags[tags.PARAMETERS] for run in runs if tags.PARAMETERS in run.tags}) > 1:
        yield Chart("Accuracy against parameters", _draw_sizes(store, runs))
    scored = [run for run in runs if run.predictions and "val_labels" in run.predictions]
    shown = [ScoredRun.read(store, run) for run in scored[:MATRICES]]
    if shown:
        change = Change.between(*shown[:2]) if len(shown) > 1 else None
        note = "Validation images: true classes in rows, predicted ones in columns."
        if len(shown) > 1 and change is None:
            note += " The first two runs have other classes, so there is no difference."
        if change is not None:
            note += " In the difference blue stands for more images, red for fewer."
        yield Chart("Confusion matrices", _draw_matrices(shown, change), note)


def _draw_curves(store: Store, runs: Sequence[StoredRun]) -> Any:
    """Draws loss and accuracy on validation by epoch."""
    panels = []
    for name in ("loss", "accuracy"):
        # The first value of an epoch: the final evaluation, without label smoothing, is no part of the curve.
        scores = [
            {"run": run.label, "epoch": epoch, name: value}
            for run in runs
            for epoch, value in sorted(dict(reversed(read_metric_history(store, run.id, f"val/{name}"))).items())
        ]
        base = alt.Chart(pd.DataFrame(scores, columns=["run", "epoch", name])).encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, grid=False)),
            y=alt.Y(f"{name}:Q", title=f"validation {name}", scale=alt.Scale(zero=False)),
            color=_colours(runs),
            tooltip=["run:N", "epoch:Q", alt.Tooltip(f"{name}:Q", format=".4f")],
        )
        hover = alt.selection_point(
            name=f"hover_{name}", on="pointerover", fields=["run"], nearest=True, empty=False, clear="pointerout"
        )
        lines = base.mark_line().encode(strokeWidth=alt.condition(hover, alt.value(3.5), alt.value(1.8)))
        points = base.mark_circle(size=24, opacity=1).add_params(hover)
        panels.append((lines + points).properties(width=WIDTH, height=HEIGHT))
    return alt.hconcat(*panels)


def _draw_sizes(store: Store, runs: Sequence[StoredRun]) -> Any:
    """Draws the accuracy of each run, with its interval, against the parameters of its net."""
    rows = [
        {
            "run": run.label,
            "parameters": int(run.tags[tags.PARAMETERS]),
            "accuracy": run.metrics["val/accuracy"],
            **{end: run.metrics.get(f"val/accuracy_{end}") for end in ("low", "high")},
            "url": page_of_run(store, run.experiment_id, run.id),
        }
        for run in runs
        if tags.PARAMETERS in run.tags and "val/accuracy" in run.metrics
    ]
    columns = ["run", "parameters", "accuracy", "low", "high", "url"]
    accuracy: dict[str, Any] = {
        "scale": alt.Scale(zero=False),
        "axis": alt.Axis(format=".1%"),
        "title": "validation accuracy",
    }
    base = alt.Chart(pd.DataFrame(rows, columns=columns)).encode(
        x=alt.X("parameters:Q", scale=alt.Scale(type="log", nice=False, padding=20), axis=alt.Axis(format="~s")),
        color=_colours(runs),
        href="url:N",
        tooltip=["run:N", alt.Tooltip("parameters:Q", format=","), alt.Tooltip("accuracy:Q", format=".2%")],
    )
    points = base.mark_circle(size=80, opacity=1).encode(y=alt.Y("accuracy:Q", **accuracy))
    reach = base.mark_rule().encode(y=alt.Y("low:Q", **accuracy), y2="high:Q")
    return (reach + points).properties(width=2 * WIDTH, height=HEIGHT)


def _colours(runs: Sequence[StoredRun]) -> alt.Color:
    """The colour of each run, in the order of the comparison."""
    labels = [run.label for run in runs]
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(labels))]
    legend = alt.Legend(orient="bottom", columns=2, labelLimit=360, symbolType="stroke")
    return alt.Color("run:N", title=None, scale=alt.Scale(domain=labels, range=colours), legend=legend)


def _draw_matrices(shown: "Sequence[ScoredRun]", change: "Change | None") -> Any:
    """Draws confusion matrices on validation side by side and, for the first two, their difference."""
    panels = []
    for one in shown:
        counts = one.confusion()
        panels.append(draw_confusion([one.label, f"{counts.sum():,} images"], counts, one.class_names))
    if change:
        panels.append(_draw_difference(change))
    return alt.concat(*panels, columns=2).resolve_scale(color="independent")


def _draw_difference(change: "Change") -> Any:
    """Draws the difference: blue if the second run has more images, red if fewer. The diagonal is right answers."""
    values = np.nan_to_num(change.values)  # a class without images has no difference
    most = max(float(np.abs(values).max()), 1)
    colour = alt.Color("more:Q", legend=None, scale=alt.Scale(scheme="redblue", domain=[-most, most]))
    strong = abs(alt.datum.more) > 0.6 * most
    ink = alt.condition(strong, alt.value("white"), alt.value(INK))
    title = ["The second minus the first,", change.unit]
    return draw_cells(title, values, change.class_names, colour, "more", ink, "+.0f")


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
