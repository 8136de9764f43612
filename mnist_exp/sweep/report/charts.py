"""The charts of a sweep's report, as Vega-Lite: legible with 5 and with 200 trials, with words at every point.

Complete trials are blue, pruned ones light blue, excluded ones grey; the best one is orange.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import format_value
from mnist_exp.evaluation.page import draw_confusion, heading
from mnist_exp.evaluation.plots import BLUE, INK, MUTED, ORANGE, shorten, shorten_all
from mnist_exp.sweep.space import Choices, Parameter, Space
from mnist_exp.tracking.stored_run import TrialRun

Confusion = tuple[str, np.ndarray, Sequence[str]]  # title, counts (true, predicted), class names

WIDTH, HEIGHT = 820, 300  # pixels
PANELS, PANEL = 3, 220  # slices in a row, and the width of one
LETTERS = 28  # of a name beside an axis
TICKS = 12  # most labels of an axis
STATES = {"complete": BLUE, "pruned": "#9dbfe0", "excluded": "#b5b5b5", "best": ORANGE}


def frame(
    attempts: Sequence[TrialRun],
    space: Space,
    best: TrialRun | None,
    sizes: Mapping[int, int],
    links: Mapping[int, str],
) -> pd.DataFrame:
    """Returns the trials with a score in the order in which they ended, one row each.

    sizes: their parameters, as far as they are known. links: their pages in MLflow.
    """
    done = sorted(
        (trial for trial in attempts if trial.has_score), key=lambda trial: (trial.ended or 0.0, trial.number)
    )
    rows = []
    for order, trial in enumerate(done, 1):
        state = "best" if best and trial.number == best.number else "excluded" if trial.excluded else trial.outcome
        values = space.assigned(trial.values) if space.holds(trial.values) else trial.values
        rows.append(
            {
                "order": order,
                "trial": trial.number,
                "score": trial.score,
                "state": state,
                "epochs": trial.epochs,
                "seconds": round(trial.seconds, 1),
                "parameters": sizes.get(trial.number),
                "values": ", ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in values.items()),
                "url": links.get(trial.number),
            }
        )
    return pd.DataFrame(rows)


def progress(trials: pd.DataFrame, objective: Objective, edges: tuple[float, float]) -> Any:
    """The score of each trial and the best so far. Far worse scores are at the edge."""
    counted = trials[trials.state.isin(["complete", "best"])]
    so_far = counted.score.cummax() if objective.direction == "max" else counted.score.cummin()
    line = (
        alt.Chart(counted.assign(so_far=so_far))
        .mark_line(interpolate="step-after", color=ORANGE, strokeWidth=2)
        .encode(x="order:Q", y=_score_axis("so_far", objective, edges))
    )
    points = _points(trials).encode(
        x=alt.X(
            "order:Q",
            title="trials in the order in which they ended",
            axis=alt.Axis(tickMinStep=1, grid=False),
            scale=alt.Scale(zero=False, nice=False, padding=12),
        ),
        y=_score_axis("score", objective, edges),
    )
    return (line + points).properties(width=WIDTH, height=HEIGHT)


def curves(
    found: Mapping[int, Sequence[float]], trials: pd.DataFrame, objective: Objective, edges: tuple[float, float],
    rungs: Sequence[int],
) -> Any:  # fmt: skip
    """The objective of each trial by epoch. found: by trial. rungs: the epochs at which trials were compared."""
    states = dict(zip(trials.trial, trials.state, strict=True))
    values = dict(zip(trials.trial, trials["values"], strict=True))
    rows = [
        {"trial": number, "epoch": epoch, "score": value, "state": states[number], "values": values[number]}
        for number, curve in found.items()
        for epoch, value in enumerate(curve, 1)
    ]
    hover = alt.selection_point(on="pointerover", fields=["trial"], nearest=True, empty=False, clear="pointerout")
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, grid=False)),
        y=_score_axis("score", objective, edges),
        detail="trial:N",
        color=_state_colour(list(states.values())),
        tooltip=_tooltips("trial", "epoch", "score", "values"),
    )
    lines = base.mark_line().encode(
        strokeOpacity=alt.condition(hover, alt.value(1), alt.value(0.45)),
        strokeWidth=alt.condition(hover, alt.value(3), alt.value(1.2)),
    )
    ends = base.mark_circle(size=30, opacity=1).add_params(hover)
    layers = [lines, ends]
    if rungs:
        rules = alt.Chart(pd.DataFrame({"epoch": list(rungs)}))
        layers.append(rules.mark_rule(strokeDash=[4, 4], color=MUTED).encode(x="epoch:Q"))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def front(trials: pd.DataFrame, objective: Objective, edges: tuple[float, float]) -> Any:
    """The score against the parameters of the net, and the front: no trial is both smaller and better."""
    known = trials.dropna(subset=["parameters"])
    counted = known[known.state.isin(["complete", "best"])].sort_values(
        ["parameters", "score"], ascending=[True, objective.direction == "min"], kind="stable"
    )
    better = counted.score.cummax() if objective.direction == "max" else counted.score.cummin()
    edge = counted[(better != better.shift()) & (counted.score == better)]
    line = (
        alt.Chart(edge)
        .mark_line(interpolate="step-after", color=MUTED, strokeDash=[5, 3])
        .encode(x="parameters:Q", y=_score_axis("score", objective, edges))
    )
    points = _points(known).encode(
        x=alt.X("parameters:Q", scale=alt.Scale(type="log", nice=False, padding=12), axis=alt.Axis(format="~s")),
        y=_score_axis("score", objective, edges),
    )
    return (line + points).properties(width=WIDTH, height=HEIGHT)


def parallel(
    trials: pd.DataFrame, done: Sequence[TrialRun], space: Space, objective: Objective, edges: tuple[float, float]
) -> Any:
    """The values of each trial as a line from axis to axis; the better, the darker."""
    rows, marks, names = [], [], _axes(space)
    scores = dict(zip(trials.trial, trials.score, strict=True))
    for trial in done:
        active = {parameter.name for parameter in space.active(trial.values)}
        for parameter in space.parameters:
            if parameter.name in active:
                value = trial.values[parameter.name]
                rows.append(
                    {
                        "axis": names[parameter.name],
                        "place": _place(parameter, value),
                        "value": _short(value),
                        "trial": trial.number,
                        "score": scores[trial.number],
                    }
                )
    for parameter in space.parameters:
        marks += [{"axis": names[parameter.name], "place": place, "label": label} for place, label in _ticks(parameter)]
    hover = alt.selection_point(on="pointerover", fields=["trial"], empty=False, clear="pointerout")
    axis = alt.X(
        "axis:N",
        sort=list(names.values()),
        title=None,
        axis=alt.Axis(labelAngle=0, labelLimit=170, grid=True, orient="top"),
    )
    place = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[-0.05, 1.05]))
    reverse = objective.direction == "min"
    lines = (
        alt.Chart(pd.DataFrame(rows))
        .mark_line()
        .encode(
            x=axis,
            y=place,
            detail="trial:N",
            color=alt.Color(
                "score:Q",
                title=objective.metric,
                scale=alt.Scale(scheme="blues", domain=list(edges), clamp=True, reverse=reverse),
            ),
            strokeOpacity=alt.condition(hover, alt.value(1), alt.value(0.6)),
            strokeWidth=alt.condition(hover, alt.value(4), alt.value(1.5)),
        )
    )
    points = (
        alt.Chart(pd.DataFrame(rows))
        .mark_circle(size=40, color=INK, opacity=1, fillOpacity=0.35)
        .encode(x=axis, y=place, tooltip=_tooltips("trial", "score", "axis", "value"))
        .add_params(hover)
    )
    labels = alt.Chart(pd.DataFrame(marks)).encode(x=axis, y=place, text="label:N")
    look: dict[str, Any] = {"align": "left", "dx": 7, "fontSize": 10}
    behind = labels.mark_text(**look, stroke="white", strokeWidth=4)  # else the lines hide the words
    width = max(WIDTH, 170 * len(names))
    return (lines + points + behind + labels.mark_text(**look, color=INK)).properties(width=width, height=HEIGHT)


def slices(
    trials: pd.DataFrame, done: Sequence[TrialRun], space: Space, objective: Objective, edges: tuple[float, float]
) -> Any:
    """The score against the values of each parameter."""
    panels = []
    for parameter in space.parameters:
        having = {trial.number: trial.values[parameter.name] for trial in done if parameter.name in trial.values}
        data = trials[trials.trial.isin(having)]
        shown = [having[number] for number in data.trial]
        if isinstance(parameter.values, Choices):
            names = list(map(_short, parameter.values.values))
            data = data.assign(value=[_short(value) for value in shown])
            x = alt.X("value:N", sort=names, title=None, axis=alt.Axis(labelAngle=-30, labelLimit=110))
        else:
            data = data.assign(value=shown)
            kind: Any = "log" if parameter.values.log else "linear"
            zero: dict[str, Any] = {} if parameter.values.log else {"zero": False}
            scale = alt.Scale(type=kind, nice=False, padding=8, **zero)
            x = alt.X("value:Q", title=None, scale=scale, axis=alt.Axis(format="~g", grid=False, tickCount=4))
        y = _score_axis("score", objective, edges, title=None)
        panel = _points(data).encode(x=x, y=y, color=_state_colour(list(trials.state)))  # panels share their colours
        panels.append(panel.properties(width=PANEL, height=170, title=heading(shorten(parameter.name, LETTERS))))
    return alt.concat(*panels, columns=PANELS)


def importance(shares: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> Any:
    """How much each parameter explains of the scores, and between which shares this lies for other trials alike."""
    rows = [
        {"parameter": shorten(name, 2 * LETTERS), "share": share, "low": ranges[name][0], "high": ranges[name][1]}
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
    base = alt.Chart(pd.DataFrame(rows)).encode(
        y=alt.Y("parameter:N", sort=None, title=None, axis=alt.Axis(labelLimit=320)),
        tooltip=[
            alt.Tooltip("parameter:N"),
            *(alt.Tooltip(f"{one}:Q", format=".0%") for one in ("share", "low", "high")),
        ],
    )
    share = alt.X("share:Q", title=None, axis=alt.Axis(format=".0%", grid=False), scale=alt.Scale(domain=[0, 1]))
    bars = base.mark_bar(color=BLUE, height=alt.RelativeBandSize(0.6)).encode(x=share)
    reach = base.mark_rule(color=INK).encode(x="low:Q", x2="high:Q")
    return (bars + reach).properties(width=WIDTH - 240, height=alt.Step(26))


def confusions(best: Sequence[Confusion]) -> Any:
    """The confusion matrices of the best trials side by side: true classes in rows."""
    return alt.hconcat(*(draw_confusion(*one) for one in best))


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


def _points(trials: pd.DataFrame) -> alt.Chart:
    """The trials as points that say what they are and lead to their pages."""
    encoding: dict[str, Any] = {
        "color": _state_colour(list(trials.state)),
        "tooltip": _tooltips("trial", "score", "state", "values", "epochs", "seconds", "parameters"),
        "order": alt.Order("rank:Q"),
    }
    if trials.url.notna().any():
        encoding["href"] = "url:N"
    ranked = trials.assign(rank=trials.state.map({"excluded": 0, "pruned": 1, "complete": 2, "best": 3}))
    return alt.Chart(ranked).mark_circle(size=64, opacity=1, fillOpacity=0.85).encode(**encoding)


def _state_colour(present: Sequence[str]) -> alt.Color:
    """The colour of each state; the legend names those that are present."""
    shown = {state: colour for state, colour in STATES.items() if state in present}
    return alt.Color(
        "state:N",
        title=None,
        scale=alt.Scale(domain=list(shown), range=list(shown.values())),
        legend=alt.Legend(orient="top", symbolType="circle"),
    )


def _score_axis(field: str, objective: Objective, edges: tuple[float, float], title: str | None = "") -> alt.Y:
    scale = alt.Scale(domain=list(edges), clamp=True, nice=False)
    return alt.Y(f"{field}:Q", title=objective.metric if title == "" else title, scale=scale)


def _tooltips(*fields: str) -> list[alt.Tooltip]:
    kinds = {"score": alt.Tooltip("score:Q", format=".4f"), "parameters": alt.Tooltip("parameters:Q", format=",")}
    plain = ("values", "state", "axis", "value")
    return [kinds.get(one, alt.Tooltip(f"{one}:N" if one in plain else f"{one}:Q")) for one in fields]


def _axes(space: Space) -> dict[str, str]:
    """The name of each parameter's axis."""
    names = [parameter.name for parameter in space.parameters]
    return dict(zip(names, shorten_all(names, LETTERS), strict=True))


def _place(parameter: Parameter, value: Any) -> float:
    """Where a value lies on an axis from 0 to 1."""
    allowed = parameter.values
    if isinstance(allowed, Choices):
        return allowed.index(value) / max(len(allowed.values) - 1, 1)
    if allowed.low == allowed.high:
        return 0.5
    if allowed.log:
        return math.log(value / allowed.low) / math.log(allowed.high / allowed.low)
    return float(value - allowed.low) / float(allowed.high - allowed.low)


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    """The labels of an axis and their places."""
    allowed = parameter.values
    if isinstance(allowed, Choices):
        step = -(-len(allowed.values) // TICKS)
        return [(_place(parameter, value), _short(value)) for value in allowed.values[::step]]
    middle = math.sqrt(allowed.low * allowed.high) if allowed.log else (allowed.low + allowed.high) / 2
    return [(_place(parameter, value), f"{value:.3g}") for value in (allowed.low, middle, allowed.high)]


def _short(value: Any) -> str:
    """A value as a user would type it; a number with four digits."""
    return shorten(f"{value:.4g}" if isinstance(value, float) else format_value(value), LETTERS)
