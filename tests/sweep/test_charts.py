"""The charts of a report, read as Vega-Lite reads them."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert
from made_up_trials import MIXED, ONE, TWELVE, attempts_of, losses, space_of, with_score

from mnist_exp.config.objective import Objective
from mnist_exp.sweep.report import charts
from mnist_exp.sweep.winner import rank
from mnist_exp.tracking.stored_run import TrialRun

MAX, MIN = Objective("val/accuracy", "max"), Objective("val/loss", "min")
ODD = {"model.a_b": r"'$y$', '<b>', 'a_b^c'", "model.b": "interval(0,1)"}


def drawn(section: dict[str, Any], count: int, objective: Objective = MAX) -> tuple[pd.DataFrame, list[TrialRun]]:
    space = space_of(section)
    trials = attempts_of(space, count, losses) if objective is MIN else attempts_of(space, count)
    done = with_score(trials)
    best = next(iter(rank(done, objective)), None)
    sizes = {trial.number: 1000 * (1 + trial.number % 4) for trial in done}
    return charts.frame(trials, space, best, sizes, {trial.number: f"http://m/{trial.number}" for trial in done}), done


def edges_of(trials: pd.DataFrame, objective: Objective = MAX) -> tuple[float, float]:
    return charts.limits(list(trials.score), objective)


def rows(chart: Any) -> list[list[dict[str, Any]]]:
    """The data of a chart: a list for each of its data sets."""
    return list(chart.to_dict()["datasets"].values())


@pytest.mark.parametrize("objective", [MAX, MIN])
@pytest.mark.parametrize(("section", "count"), [(MIXED, 5), (MIXED, 200), (TWELVE, 60), (ONE, 1), (ODD, 9)])
def test_every_chart_can_be_drawn(section, count, objective):
    trials, done = drawn(section, count, objective)
    given, space = (objective, edges_of(trials, objective)), space_of(section)
    curves = {trial.number: [0.1 * epoch for epoch in range(trial.epochs)] for trial in done}
    counts = np.arange(9).reshape(3, 3)
    for chart in (
        charts.progress(trials, *given),
        charts.curves(curves, trials, *given, (1, 4)),
        charts.front(trials, *given),
        charts.parallel(trials, done, space, *given),
        charts.slices(trials, done, space, *given),
        charts.importance({"a": 0.7, "b": 0.3}, {"a": (0.5, 0.9), "b": (0.1, 0.5)}),
        charts.confusions([("trial 1", counts, ["cat", "dog", "a very long name of a class"])]),
    ):
        assert len(vl_convert.vegalite_to_svg(chart.to_json())) > 2000


def test_a_trial_is_a_point_that_says_its_values_and_leads_to_its_page():
    trials, done = drawn(MIXED, 12)
    points = max(rows(charts.progress(trials, MAX, edges_of(trials))), key=len)
    assert {row["trial"] for row in points} == {trial.number for trial in done}
    first = next(row for row in points if row["trial"] == done[0].number)
    assert first["url"] == f"http://m/{done[0].number}"
    assert first["values"].startswith("widths=[")
    assert sum(row["state"] == "best" for row in points) == 1
    spec = charts.progress(trials, MAX, edges_of(trials)).to_dict()
    assert spec["layer"][1]["encoding"]["href"]["field"] == "url"


@pytest.mark.parametrize("objective", [MAX, MIN])
def test_the_best_so_far_never_gets_worse_and_leaves_pruned_trials_out(objective):
    trials, _ = drawn(ONE, 40, objective)
    line = next(one for one in rows(charts.progress(trials, objective, (0.0, 1.0))) if "so_far" in one[0])
    found = [row["so_far"] for row in line]
    assert found == sorted(found, reverse=objective is MIN)
    assert {row["state"] for row in line} == {"complete", "best"}


def test_on_the_front_no_trial_is_both_smaller_and_better():
    trials, _ = drawn(ONE, 40)
    edge = min(rows(charts.front(trials, MAX, (0.0, 1.0))), key=len)
    sizes, scores = [row["parameters"] for row in edge], [row["score"] for row in edge]
    assert sizes == sorted(sizes)
    assert scores == sorted(scores)
    counted = trials[trials.state.isin(["complete", "best"])]
    assert scores[-1] == counted.score.max()
    for row in edge:
        assert not ((counted.parameters <= row["parameters"]) & (counted.score > row["score"])).any()


def test_a_line_passes_the_axes_that_counted_and_no_other():
    trials, done = drawn(MIXED, 30)
    lines = max(rows(charts.parallel(trials, done, space_of(MIXED), MAX, (0.0, 1.0))), key=len)
    for trial in done:
        assert sum(row["trial"] == trial.number for row in lines) == len(trial.values)
    assert all(-1e-9 <= row["place"] <= 1 + 1e-9 for row in lines)


def test_places_on_an_axis_follow_the_order_or_the_magnitude():
    space = space_of({"model.a": "4, 8, 16", "model.b": "tag(log, interval(1e-4, 1e-2))", "model.c": "interval(0, 10)"})
    a, b, c = space.parameters
    assert [charts._place(a, value) for value in (4, 8, 16)] == [0, 0.5, 1]
    assert charts._place(b, 1e-3) == pytest.approx(0.5)
    assert charts._place(c, 2.5) == 0.25
    assert [label for _, label in charts._ticks(b)] == ["0.0001", "0.001", "0.01"]


def test_confusions_keep_their_counts_and_the_order_of_the_classes():
    counts = np.array([[5, 0], [2, 7]])
    (found,) = rows(charts.confusions([("trial 3", counts, ["dog", "cat"])]))
    assert {(row["true"], row["predicted"]): row["images"] for row in found} == {
        ("dog", "dog"): 5, ("cat", "dog"): 2, ("cat", "cat"): 7,
    }  # fmt: skip


@pytest.mark.parametrize("direction", ["max", "min"])
@pytest.mark.parametrize("scores", [[0.5], [0.9, 0.91, 0.92, 0.1], [1e6, 0.1, 0.2, 0.3], [0.0, 0.0]])
def test_limits_never_cut_off_the_best(direction, scores):
    low, high = charts.limits(scores, Objective("x", direction))
    best = max(scores) if direction == "max" else min(scores)
    assert low <= best <= high
    assert math.isfinite(low) and low < high  # noqa: PT018
