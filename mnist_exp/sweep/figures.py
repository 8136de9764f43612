"""Figures of a sweep, legible with 5 and with 200 trials."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_exp.evaluation import Evaluation
from mnist_exp.figures import BLUE, INK, LINE, MUTED, ORANGE, RED, laid_out, matrix, numbers, plain, short
from mnist_exp.sweep.space import Choices, Parameter, Space
from mnist_exp.tracking.sweeps import Attempt

PANELS = 3  # slices in a row
LABELS = 12  # choices of a parameter that are named beside its axis
LETTERS = 16  # of a choice's name


def progress(attempts: Sequence[Attempt], objective: str, direction: str) -> Figure:
    """The score of each trial and the best so far; what failed stands at the lower edge."""
    scored = [a for a in attempts if a.score is not None]
    failed = [a.number for a in attempts if a.outcome == "failed"]
    figure = laid_out(9, 3.8)
    axes = figure.subplots()
    low, high = _limits([a.score for a in scored if a.score is not None], direction)
    for pruned, face, label in ((False, BLUE, "scored"), (True, "white", "pruned")):
        chosen = [a for a in scored if (a.outcome == "pruned") == pruned]
        if chosen:
            y = np.clip([a.score for a in chosen if a.score is not None], low, high)
            axes.scatter([a.number for a in chosen], y, s=22, c=face, edgecolors=BLUE, linewidths=1, label=label)
    if failed:
        axes.scatter(failed, [low] * len(failed), s=30, c=RED, marker="x", label="failed", clip_on=False, zorder=3)
    best = np.maximum if direction == "max" else np.minimum
    if scored:
        y = best.accumulate([a.score for a in scored if a.score is not None])
        axes.step([a.number for a in scored], y, where="post", color=ORANGE, linewidth=1.6, label="best so far")
    axes.set_ylim(low, high)
    axes.set_xlabel("trial", size=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_title(f"{objective} of each trial", loc="left", size=12, weight="bold", color=INK)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    plain(axes)
    return figure


def importance(shares: Mapping[str, float]) -> Figure:
    """How much of the scores' differences each parameter explains, the most important first."""
    names = sorted(shares, key=lambda name: -shares[name])
    figure = laid_out(8, 1.2 + 0.36 * len(names))
    axes = figure.subplots()
    bars = axes.barh(range(len(names)), [shares[name] for name in names], 0.6, color=BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3, size=9, color=INK)
    axes.set_yticks(range(len(names)), [short(name, 48) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.1 * max([*shares.values(), 0.01]))
    axes.set_title("Importance of each parameter", loc="left", size=12, weight="bold", color=INK)
    axes.set_xlabel("share of the variance explained (fANOVA); those of a condition within it", size=9, color=MUTED)
    plain(axes)
    return figure


def parallel(space: Space, scored: Sequence[Attempt], direction: str) -> Figure:
    """A line a trial through the values of all parameters, the better the darker; gaps where one did not count."""
    parameters = [*space.parameters]
    figure = laid_out(max(7, 1.5 * len(parameters) + 2.5), 4.6)
    axes = figure.subplots()
    scores = np.array([a.score for a in scored], dtype=float)
    low, high = _limits(list(scores), direction)
    order = np.argsort(scores if direction == "max" else -scores)
    places = np.array([[_place(p, a.values.get(p.name)) for p in parameters] for a in scored], dtype=float)
    spread = np.random.default_rng(0).uniform(-0.012, 0.012, places.shape)  # equal choices side by side
    lines = np.stack([np.broadcast_to(np.arange(len(parameters)), places.shape), places + spread], axis=2)
    norm = Normalize(low, high) if direction == "max" else Normalize(-high, -low)
    colours = LineCollection([line[~np.isnan(line[:, 1])] for line in lines[order]], cmap=colormaps["viridis_r"])
    colours.set(norm=norm, array=(scores if direction == "max" else -scores)[order], linewidth=1.2, alpha=0.75)
    axes.add_collection(colours)
    for x, parameter in enumerate(parameters):
        axes.axvline(x, color=LINE, linewidth=1, zorder=0)
        for y, word in _ticks(parameter):
            axes.text(x + 0.03, y, word, size=8, color=INK, va="center", parse_math=False)
    names = [_two_lines(parameter) for parameter in parameters]
    axes.set_xticks(range(len(parameters)), names, parse_math=False)
    axes.set_yticks([])
    axes.set_xlim(-0.15, len(parameters) - 0.4)
    axes.set_ylim(-0.06, 1.06)
    axes.set_title("All parameters of all trials", loc="left", size=12, weight="bold", color=INK)
    axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    bar = figure.colorbar(colours, ax=axes, shrink=0.8, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, color=LINE, labelcolor=INK)
    if direction == "min":
        bar.ax.yaxis.set_major_formatter(lambda value, place: f"{-value:.3g}")
    return figure


def slices(space: Space, scored: Sequence[Attempt], objective: str, direction: str) -> Figure:
    """The score against each parameter, a panel each."""
    parameters = [*space.parameters]
    rows = math.ceil(len(parameters) / PANELS)
    figure = laid_out(10, 0.6 + 2.6 * rows)
    panels = np.atleast_1d(figure.subplots(rows, min(PANELS, len(parameters)), squeeze=False)).ravel()
    low, high = _limits([a.score for a in scored if a.score is not None], direction)
    for axes, parameter in zip(panels, parameters, strict=False):
        _slice(axes, parameter, [a for a in scored if parameter.name in a.values], low, high)
    for axes in panels[len(parameters) :]:
        axes.set_axis_off()
    figure.suptitle(f"{objective} by parameter", x=0.01, ha="left", size=12, weight="bold", color=INK)
    return figure


def confusions(best: Sequence[tuple[str, Evaluation]]) -> Figure:
    """Confusion matrices of the best trials on validation, side by side, in counts."""
    classes = len(best[0][1].class_names)
    side = min(max(0.42 * classes, 3.0), 6)
    figure = laid_out(len(best) * (side + 0.9), side + 1.4)
    for axes, (title, evaluation) in zip(np.atleast_1d(figure.subplots(1, len(best))), best, strict=True):
        image = matrix(axes, evaluation.confusion, evaluation.class_names)
        axes.set_title(title, size=10, color=INK, parse_math=False)
        if classes <= 20:
            numbers(axes, image, str, size=min(max(14 * side / classes, 6), 10))
    figure.suptitle("Validation images: true classes in rows, predicted in columns", size=11, color=INK)
    return figure


def _slice(axes: Axes, parameter: Parameter, scored: Sequence[Attempt], low: float, high: float) -> None:
    y = np.clip([a.score for a in scored if a.score is not None], low, high)
    if isinstance(parameter.values, Choices):
        tokens = parameter.values.tokens
        places = np.array([tokens.index(str(a.values[parameter.name])) for a in scored], dtype=float)
        x: Any = places + np.random.default_rng(0).uniform(-0.15, 0.15, len(places))
        turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if max(map(len, tokens)) > 6 else {}
        shown = range(0, len(tokens), math.ceil(len(tokens) / LABELS))
        axes.set_xticks(shown, [short(tokens[tick], LETTERS) for tick in shown], parse_math=False, **turned)
        axes.set_xlim(-0.5, len(tokens) - 0.5)
    else:
        x = [a.values[parameter.name] for a in scored]
        if parameter.values.log:
            axes.set_xscale("log")
    axes.scatter(x, y, s=16, c=[a.number for a in scored], cmap="Blues", vmin=-20, edgecolors=BLUE, linewidths=0.5)
    axes.set_ylim(low, high)
    axes.set_title(_two_lines(parameter).replace("\n", ", "), size=9, color=INK, loc="left", parse_math=False)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    plain(axes)
    axes.tick_params(labelsize=8)


def _limits(scores: Sequence[float], direction: str) -> tuple[float, float]:
    """A range in which the good scores can be told apart; far worse ones are drawn at its edge."""
    if not scores:
        return 0.0, 1.0
    lower, median, upper = np.quantile(scores, (0.25, 0.5, 0.75))
    room = 3 * max(upper - lower, 1e-3)
    low, high = max(min(scores), median - room), min(max(scores), median + room)
    low, high = (low, max(scores)) if direction == "max" else (min(scores), high)
    margin = 0.06 * max(high - low, 1e-3)
    return low - margin, high + margin


def _place(parameter: Parameter, value: Any) -> float:
    """Where a value lies on its axis, 0 to 1; NaN where the parameter did not count."""
    if value is None:
        return math.nan
    if isinstance(parameter.values, Choices):
        tokens = parameter.values.tokens
        return tokens.index(str(value)) / max(len(tokens) - 1, 1)
    low, high = parameter.values.low, parameter.values.high
    if parameter.values.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    if isinstance(parameter.values, Choices):
        tokens = parameter.values.tokens
        shown = range(0, len(tokens), math.ceil(len(tokens) / LABELS))
        return [(_place(parameter, tokens[tick]), short(tokens[tick], LETTERS)) for tick in shown]
    low, high = parameter.values.low, parameter.values.high
    middle = math.sqrt(low * high) if parameter.values.log else (low + high) / 2
    return [(_place(parameter, value), f"{value:.3g}") for value in (low, middle, high)]


def _two_lines(parameter: Parameter) -> str:
    return f"{parameter.key}\n{parameter.when}" if parameter.when else parameter.key
