"""Figures of a sweep, legible with 5 and with 200 trials. Trials are blue, the best one orange, failed ones red."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import format_value
from mnist_exp.evaluation import plots
from mnist_exp.evaluation.plots import BLUE, INK, LINE, MUTED, ORANGE, RED, shorten
from mnist_exp.sweep.space import Choices, Numbers, Parameter, Space
from mnist_exp.sweep.winner import rank
from mnist_exp.tracking.stored_run import TrialRun

Confusion = tuple[str, np.ndarray, Sequence[str]]  # title, counts (true, predicted), class names
Points = Sequence[tuple[float, TrialRun]]  # trials at their places on an axis

PANELS = 3  # slices in a row
PANEL, ROW = 2.5, 6.4  # inches, the width of a slice, and of an axis of parallel coordinates
SHARES, SHADES = (0.5, 0.75, 0.9), (0.25, 0.45, 0.7, 1.0)  # of the trials, and of the blues for those between
UNUSED = -0.6 / ROW  # the place of a parameter that did not count, beside its axis
LABELS = 12  # choices of a parameter that are named beside its axis
LETTERS = 34  # of a parameter's name
LETTER = 0.078  # inches, of text of 8 points: a wide one
TITLE: dict[str, Any] = {"size": 12, "weight": "bold", "color": INK}


def progress(attempts: Sequence[TrialRun], objective: Objective) -> Figure:
    """Plots the score of each trial and the best so far. Failed and far worse trials are at the edge of the worst."""
    done = [trial for trial in attempts if trial.has_score]
    figure = plots.new_figure(9, 3.8)
    axes = figure.subplots()
    axes.set_title(f"{objective.metric} of each trial", loc="left", pad=12, **TITLE)
    axes.set_xlabel("trial", size=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    last = max((a.number for a in attempts), default=0)
    axes.set_xlim(-0.5 - 0.01 * last, last + 0.5 + 0.01 * last)
    _dots(axes, [(a.number, a) for a in attempts], objective, limits(_scores(done), objective))
    if ranked := rank(done, objective):
        comparable = sorted(ranked, key=lambda trial: trial.number)
        so_far = (np.maximum if objective.direction == "max" else np.minimum).accumulate(_scores(comparable))
        steps = [*(a.number for a in comparable), last + 0.5], [*so_far, so_far[-1]]
        axes.step(*steps, where="post", color=ORANGE, linewidth=1.6, label="best so far")
        best = ranked[0]
        better = "higher" if objective.direction == "max" else "lower"
        words = f"best {best.score:.4f}, trial {best.number}; {better} is better"
    else:
        words = "no trial is complete"
    if not done:
        axes.set_yticks([])
    axes.set_title(words, loc="right", pad=12, size=9, color=MUTED)
    _explain_dots(figure)
    return figure


def importance(space: Space, shares: Mapping[str, float]) -> Figure:
    """Plots how much of the differences of the scores each parameter explains, for a condition among its own trials.

    shares: by the parameters' names, those of a condition sum to 1; parameters that have none are left out.
    """
    groups: dict[str, list[Parameter]] = {}
    for parameter in sorted((p for p in space.parameters if p.name in shares), key=lambda p: -shares[p.name]):
        groups.setdefault(str(parameter.when or ""), []).append(parameter)
    rows = sum(map(len, groups.values())) + 1.1 * sum(map(bool, groups))
    figure, axes = plots.new_canvas(9, 1.05 + 0.32 * rows)
    _write(axes, 0.2, 0.3, "What explains the differences in score", **TITLE)
    _write(axes, 0.2, 0.58, "share of each parameter (fANOVA)", color=MUTED)
    y, left, width = 0.98, 3.3, 4.9
    for when in sorted(groups):  # what always counts comes first
        if when:
            _write(axes, 0.2, y + 0.06, f"among trials with {shorten(when, 60)}", color=MUTED)
            y += 0.352
        for parameter in groups[when]:
            share, alone = shares[parameter.name], len(groups[when]) == 1
            length = 0.0 if alone else width * share
            _write(axes, left - 0.1, y, shorten(parameter.key, LETTERS + 4), ha="right")
            axes.barh(y, length, 0.2, left=left, color=BLUE)
            _write(axes, left + 0.08 + length, y, f"{share:.2f}{', as the only one that varies' * alone}")
            y += 0.32
    return figure


def parallel(space: Space, done: Sequence[TrialRun], objective: Objective) -> Figure:
    """Draws one line per trial through its values to its score. Better trials are darker and end farther right.

    There is one row per parameter, so that twelve of them fit on a page as well as two.
    """
    names = [(shorten(p.key, LETTERS), shorten(str(p.when or ""), LETTERS)) for p in space.parameters]
    left, top, pitch = 1.2 + LETTER * max(len(name) for pair in names for name in pair), 1.15, 0.75
    figure, axes = plots.new_canvas(left + ROW + 0.4, top + pitch * len(names) + 0.35)
    _write(axes, 0.2, 0.3, "Values and score of each trial", **TITLE)
    leader = rank(done, objective)[0]  # lies on top, also if a pruned trial has a better score
    done = sorted(done, key=lambda a: (a is not leader, objective.rank(a.score or 0.0), a.number))[::-1]
    worth = np.array([-objective.rank(a.score or 0.0) for a in done])
    edges = np.quantile(worth, SHARES)
    scores = [-objective.rank(edge) + 0.0 for edge in edges]
    _legend(axes, left + ROW, objective.metric, scores, f"best: trial {done[-1].number}")
    for row, (parameter, (key, when)) in enumerate(zip(space.parameters, names, strict=True)):
        _write(axes, 0.2, top + row * pitch + 0.18, when, size=8, color=MUTED)
        unused = [(UNUSED, "unused")] * bool(when)
        levels = 2 if any("…" in word for _, word in _ticks(parameter, ROW)) else 1
        _row(axes, top + row * pitch, left, key, [*unused, *_ticks(parameter, ROW, levels)], levels)
    worst, best = limits(_scores(done), objective)[:: 1 if objective.direction == "max" else -1]
    marks = [((value - worst) / (best - worst), f"{value:.4g}") for value in MaxNLocator(5).tick_values(worst, best)]
    _row(axes, top + len(names) * pitch, left, objective.metric, [mark for mark in marks if 0 <= mark[0] <= 1])
    places = np.array(
        [[_place(p, a.values[p.name]) if p.name in a.values else math.nan for p in space.parameters] for a in done]
    )
    places += np.random.default_rng(0).uniform(-0.015, 0.015, places.shape)  # equal choices side by side
    places = np.clip(np.column_stack([places, (_scores(done) - worst) / (best - worst)]), 0, 1)
    x = left + ROW * np.where(np.isnan(places), UNUSED, places)
    lines = np.stack([x, np.broadcast_to(top + pitch * np.arange(len(names) + 1), x.shape)], axis=2)
    shades = np.asarray(colormaps["Blues"](SHADES))[np.searchsorted(edges, worth, side="right")]
    axes.add_collection(LineCollection([*lines], colors=shades, linewidths=1, zorder=2))
    axes.plot(*lines[-1].T, color=ORANGE, linewidth=2.2, zorder=2.5)
    return figure


def slices(space: Space, attempts: Sequence[TrialRun], objective: Objective) -> Figure:
    """Plots the score against each parameter, for the trials in which it counted. At least one has a score."""
    parameters = space.parameters
    columns, rows = min(PANELS, len(parameters)), math.ceil(len(parameters) / PANELS)
    figure = plots.new_figure(0.4 + 3.3 * max(columns, 1.5), 0.9 + 2.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    done = [attempt for attempt in attempts if attempt.has_score]
    best, edges = rank(done, objective)[0], limits(_scores(done), objective)
    for axes, parameter in zip(panels, parameters, strict=False):
        counted = [a for a in attempts if parameter.name in a.values]
        points = list(zip(_slice(axes, parameter, counted), counted, strict=True))
        _dots(axes, points, objective, edges, 14)
        axes.tick_params(labelsize=8)
        if found := [x for x, attempt in points if attempt is best]:
            axes.scatter(found, [best.score], s=40, c=ORANGE, edgecolors="white", zorder=4, label="best")
    for axes in panels[len(parameters) :]:
        axes.set_axis_off()
    figure.suptitle(f"{objective.metric} by parameter", x=0.01, ha="left", **TITLE)
    _explain_dots(figure)
    return figure


def confusions(best: Sequence[Confusion]) -> Figure:
    """Draws confusion matrices of the best trials on the validation images, side by side, with the same colours."""
    classes, most = max(len(names) for _, _, names in best), max(float(counts.max()) for _, counts, _ in best)
    side = min(max(0.4 * classes, 2.6), 5)
    room = 0.075 * min(max(len(name) for _, _, names in best for name in names), plots.AXIS_LETTERS)
    figure = plots.new_figure(len(best) * (side + room + 0.5) + 0.7, side + 0.7 * room + 1.3)
    panels = figure.subplots(1, len(best), squeeze=False).ravel()
    for axes, (title, counts, names) in zip(panels, best, strict=True):
        image = plots.draw_matrix(axes, counts, names)
        image.set_clim(0, max(most, 1))
        axes.set_title(title, size=10, color=INK, parse_math=False)
        axes.tick_params(labelsize=min(9, 42 * side / len(axes.get_yticks())))
        if classes <= plots.NUMBERED:
            plots.write_numbers(axes, image, str, size=min(20 * side / len(names), 10))
    if classes > plots.NUMBERED:
        bar = figure.colorbar(image, ax=[*panels], shrink=0.6, pad=0.02, ticks=MaxNLocator(5, integer=True))
        bar.ax.tick_params(labelsize=9, color=LINE, labelcolor=INK)
    figure.suptitle("Best trials on validation", **TITLE)
    return figure


def limits(scores: Sequence[float] | np.ndarray, objective: Objective) -> tuple[float, float]:
    """Returns a range of scores in which the good ones can be told apart. Far worse scores are outside."""
    if not len(scores):
        return 0.0, 1.0
    lower, median, upper = np.quantile(scores, (0.25, 0.5, 0.75))
    room = 3 * max(upper - lower, 0.01 * abs(median))
    low, high = max(min(scores), median - room), min(max(scores), median + room)
    low, high = (low, max(scores)) if objective.direction == "max" else (min(scores), high)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    return float(low - margin), float(high + margin)


def _scores(done: Sequence[TrialRun]) -> np.ndarray:
    return np.array([attempt.score for attempt in done], dtype=float)


def _write(axes: Axes, x: float, y: float, words: str, **look: Any) -> None:
    """Writes text on a canvas."""
    axes.text(x, y, words, **{"size": 9, "color": INK, "va": "center", "parse_math": False, **look})


def _row(axes: Axes, y: float, left: float, name: str, ticks: Sequence[tuple[float, str]], levels: int = 1) -> None:
    """Draws one axis of parallel coordinates, with its words in front of the lines."""
    _write(axes, 0.2, y, name)
    axes.plot((left, left + ROW), (y, y), color=MUTED, linewidth=0.8, zorder=3)
    box = {"facecolor": "white", "alpha": 0.9, "edgecolor": "none", "pad": 0.8}
    for number, (place, word) in enumerate(ticks):
        x, below = left + place * ROW, 0.17 + 0.17 * (number % levels)
        axes.plot(x, y, color=MUTED, marker="|", zorder=3)
        _write(axes, x, y + below, word, size=8, ha="center", zorder=4, bbox=box)


def _legend(axes: Axes, right: float, objective: str, edges: Sequence[float], best: str) -> None:
    """Explains the colours of the lines in the upper right corner of a canvas."""
    side = 0.66
    start = right - side * len(SHADES)
    words = [(0.0, "worse", "left"), (side * len(SHADES), "better", "right")]
    words += [(side * number, f"{edge:.4g}", "center") for number, edge in enumerate(edges, 1)]
    for x, word, align in words:
        _write(axes, start + x, 0.48, word, size=8, ha=align)
    axes.barh(0.3, side, 0.12, left=start + side * np.arange(len(SHADES)), color=colormaps["Blues"](SHADES))
    _write(axes, start - 0.1, 0.3, objective, ha="right")
    axes.plot((start - 2.6, start - 2.3), (0.3, 0.3), color=ORANGE, linewidth=2.2)
    _write(axes, start - 2.2, 0.3, best)


def _dots(axes: Axes, points: Points, objective: Objective, edges: tuple[float, float], size: float = 22) -> None:
    """Draws trials at their scores. Failed ones, and arrows for far worse ones, are at the edge of the worst."""
    worst, arrow = (edges[0], "v") if objective.direction == "max" else (edges[1], "^")
    groups: dict[str, list[tuple[float, float]]] = {"complete": [], "pruned": [], "far worse": [], "failed": []}
    for x, attempt in ((x, attempt) for x, attempt in points if attempt.outcome != "pending"):
        if attempt.score is None or attempt.outcome == "failed":
            groups["failed"].append((x, worst))
        elif edges[0] <= attempt.score <= edges[1]:
            groups[attempt.outcome].append((x, attempt.score))
        else:
            groups["far worse"].append((x, worst))
    looks: dict[str, dict[str, Any]] = {
        "complete": {"c": BLUE, "edgecolors": "white", "linewidths": 0.4},
        "pruned": {"c": "white", "edgecolors": BLUE, "linewidths": 1},
        "far worse": {"c": BLUE, "marker": arrow, "clip_on": False},
        "failed": {"c": RED, "marker": "x", "clip_on": False, "linewidths": 1.2},
    }
    for label, found in groups.items():
        if found:
            places, heights = np.transpose(found)
            axes.scatter(places, heights, s=size, label=label, zorder=3, **looks[label])
    axes.set_ylim(edges)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    plots.remove_frame(axes)


def _explain_dots(figure: Figure) -> None:
    """Draws one legend for all axes, below them."""
    found = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    if handles := {label: handle for handle, label in found}:
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=5, frameon=False, fontsize=9)


def _slice(axes: Axes, parameter: Parameter, attempts: Sequence[TrialRun]) -> np.ndarray:
    """Prepares the panel of a parameter and returns the places of these trials on its axis."""
    ticks, turned = _ticks(parameter, PANEL), dict[str, Any]()
    if any("…" in word for _, word in ticks):
        ticks, turned = _ticks(parameter, PANEL, 8), {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    spread = 0.25 / len(parameter.grid) if parameter.values.enumerable else 0.0  # equal values side by side
    axes.set_xticks([place for place, _ in ticks], [word for _, word in ticks], parse_math=False, **turned)
    axes.set_xlim(-0.04 - spread, 1.04 + spread)
    words = f"{shorten(parameter.key, LETTERS)}\n{shorten(str(parameter.when or ''), LETTERS)}".strip()
    axes.set_title(words, size=9, color=INK, loc="left", parse_math=False)
    places = np.array([_place(parameter, a.values[parameter.name]) for a in attempts], dtype=float)
    return places + np.random.default_rng(0).uniform(-spread, spread, len(places))


def _place(parameter: Parameter, value: Any) -> float:
    """Returns the place of a value on its axis, 0 to 1."""
    allowed = parameter.values
    if isinstance(allowed, Choices):
        return (allowed.index(value) + 0.5) / len(allowed.values)
    if allowed.low == allowed.high:
        return 0.5
    if allowed.log:
        return math.log(value / allowed.low) / math.log(allowed.high / allowed.low)
    return (value - allowed.low) / (allowed.high - allowed.low)


def _ticks(parameter: Parameter, width: float, levels: int = 1) -> list[tuple[float, str]]:
    """Returns places and words along an axis of this length, as many as fit side by side or on several levels."""
    if isinstance(parameter.values, Choices):
        values = parameter.values.values
        shown = values[:: math.ceil(len(values) / LABELS)]
        letters = max(int(levels * width / len(shown) / LETTER) - 1, 3)
        return [
            (_place(parameter, value), shorten(format_value(value), letters if levels == 1 else min(letters, 16)))
            for value in shown
        ]
    digits = ".0f" if parameter.values.whole else ".4g"
    first, *between, last = [(_place(parameter, value), f"{value:{digits}}") for value in _marks(parameter.values)]
    kept = [first, last]
    for place, word in between:
        if all(abs(place - other) * width > LETTER * (len(word) + len(beside) + 2) / 2 for other, beside in kept):
            kept.append((place, word))
    return sorted(kept)


def _marks(allowed: Numbers) -> list[float]:
    """Returns the ends and round numbers between them, or every value of a short range."""
    if allowed.enumerable and len(allowed.values) <= LABELS:
        return [*allowed.values] * (1 + (len(allowed.values) == 1))
    low, high = allowed.low, allowed.high
    if allowed.log:
        between = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    else:
        between = [*map(float, MaxNLocator(5, integer=allowed.whole).tick_values(low, high))]
    return [low, *(value for value in between if low < value < high), high]
