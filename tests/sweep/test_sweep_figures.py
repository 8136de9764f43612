"""The file is not called test_figures.py: pytest cannot tell two test modules of one name apart."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from spaces import parse
from test_figures import FASHION, LONG, assert_readable, guesses, texts, words

from mnist_exp.config.objective import Objective
from mnist_exp.evaluation.plots import ORANGE
from mnist_exp.sweep.report import figures
from mnist_exp.sweep.space import Choices, Parameter, Space
from mnist_exp.tracking.stored_run import TrialRun

pytestmark = pytest.mark.usefixtures("rendered_figures")

MIXED: dict[str, Any] = {
    "model.widths": "choice([64], [128, 64], [512,256,128])",
    "model.patience": "null, 3",
    "training.batch_size": "tag(log, range(32, 257, 2))",
    "optimizer": "adam, adadelta",
    "when": {
        "optimizer=adam": {"optimizer.learning_rate": "tag(log, interval(1e-4, 1e-2))"},
        "optimizer=adadelta": {"optimizer.learning_rate": "interval(0.1, 2.0)"},
    },
}
TWELVE: dict[str, Any] = {
    "model.blocks": "choice([[16],[32]], [[32],[64]], [[16,16],[32]], [[32],[32],[64]])",
    "model.padding": "same, valid",
    "model.batch_norm": "true, false",
    "model.block_dropout": "interval(0, 0.3)",
    "model.dense": "choice([], [64], [128], [256])",
    "training.batch_size": "int(interval(16, 512))",
    "training.early_stopping.restore_best_weights": "true, false",
    "dataset.augmentation.rotation": "interval(0, 0.25)",
    "seed": "range(0, 20)",
    "experiment": "dense_128_64, dense_128_128, dense_100, cnn_small, cnn_adadelta, cnn_adadelta_1, mnist_best",
    "optimizer": "adam, adamw, nadam, rmsprop, sgd, adadelta",
    "when": {"optimizer=adam,adamw,nadam,rmsprop": {"optimizer.learning_rate": "tag(log, interval(3e-7, 1e-1))"}},
}
ONE = {"optimizer.learning_rate": "tag(log, interval(1e-4, 1e-2))"}
CROWDED = {"model.name": ", ".join(f"architecture_{number}" for number in range(30)), "model.b": "interval(0,1)"}
ODD = {"model.a_b": r"'$y$', '$\nope$', 'a_b^c'", "model.b": "interval(0,1)"}
ERROR = "ValueError: <b>dense</b> must be a list & hold counts, but got '128' (models.py:84)"


def with_score(trials: list[TrialRun]) -> list[TrialRun]:
    return [trial for trial in trials if trial.has_score]


def space_of(section: dict[str, Any]) -> Space:
    return parse(section, "test", [], {})


def drawn(parameter: Parameter, place: float) -> Any:
    """The value at this place of the parameter's axis, 0 to 1."""
    allowed = parameter.values
    if isinstance(allowed, Choices) or allowed.enumerable:
        return parameter.grid[int(place * len(parameter.grid))]
    if allowed.log:
        return allowed.low * (allowed.high / allowed.low) ** place
    value = allowed.low + place * (allowed.high - allowed.low)
    return round(value) if allowed.whole else value


def attempts_of(
    space: Space, count: int, score: Callable[[float], float] = lambda badness: 0.98 - 0.05 * badness
) -> list[TrialRun]:
    """Trials drawn at random, the better the farther right their values lie; some failed, some were pruned.

    score: of a number from 0, the best, to about 1.
    """
    luck, found = random.Random(0), []
    for number in range(count):
        values: dict[str, Any] = {}
        badness = luck.uniform(0, 0.1)
        for weight, parameter in enumerate(space.parameters, 1):
            if parameter in space.active(values):
                place = luck.random()
                values[parameter.name] = drawn(parameter, place)
                badness += 1.2 * (place - 0.8) ** 2 / weight
        common: dict[str, Any] = {"run_id": f"run{number}", "number": number, "values": values, "rung": None}
        if number % 12 == 3:
            found.append(TrialRun(**common, status="FAILED", outcome="failed", error=ERROR))
            continue
        value = score(badness)
        metrics = {"val/accuracy": value, "val/accuracy_low": value - 0.003, "val/accuracy_high": value + 0.002}
        outcome = "pruned" if badness > 0.5 else "complete"
        common |= {"score": value, "metrics": metrics, "epochs": 1 + number % 10, "seconds": 9.5 * (1 + number % 10)}
        found.append(TrialRun(**common, status="FINISHED", outcome=outcome))
    return found


def losses(badness: float) -> float:
    """A loss, a fifth of which blew up."""
    return 1e6 * badness if badness > 0.9 else 0.05 + 0.3 * badness


MANY = {
    "five": (MIXED, 5, "max", {}),
    "200": (MIXED, 200, "max", {}),
    "5-of-12": (TWELVE, 5, "max", {}),
    "200-of-12": (TWELVE, 200, "max", {}),
    "200-of-1": (ONE, 200, "max", {}),
    "odd": (ODD, 30, "max", {}),
    "crowded": (CROWDED, 60, "max", {}),
    "blown-up": (MIXED, 60, "min", {"score": losses}),
    "equal": (MIXED, 20, "max", {"score": lambda badness: 0.1135}),
    "one": (MIXED, 1, "min", {}),
}


@pytest.fixture(params=MANY, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[Space, list[TrialRun], str]:
    section, count, direction, score = MANY[request.param]
    space = space_of(section)
    return space, attempts_of(space, count, **score), direction


def assert_apart(figure: Figure) -> None:
    """No two turned labels beneath an axis overlap."""
    turned = [text for text in texts(figure) if text.get_rotation() % 90]
    for axes in figure.axes:
        found = sorted((t for t in axes.get_xticklabels() if t in turned), key=lambda t: t.get_window_extent().x1)
        for some, other in pairwise(found):
            apart = other.get_window_extent().x1 - some.get_window_extent().x1
            assert apart * math.sin(math.radians(45)) >= 0.9 * some.get_fontsize() * figure.dpi / 72


def panel(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == title)


def dots(axes: Axes, label: str) -> np.ndarray:
    """The places of the trials under this label: (n, 2)."""
    found = [dots for dots in axes.collections if isinstance(dots, PathCollection) and dots.get_label() == label]
    return np.concatenate([np.asarray(dots.get_offsets()) for dots in found]) if found else np.zeros((0, 2))


def few(scores: list[float | None], outcome: str = "complete") -> list[TrialRun]:
    """Trials of one learning rate each, ever higher; without a score: failed."""
    return [
        TrialRun(f"run{n}", n, {"optimizer.learning_rate": 1e-4 * 1.1**n}, None, "FINISHED", "complete", score)
        if score is not None
        else TrialRun(f"run{n}", n, {"optimizer.learning_rate": 1e-4 * 1.1**n}, None, "FAILED", "failed", error=ERROR)
        for n, score in enumerate(scores)
    ]


def test_every_figure_is_readable(case: tuple[Space, list[TrialRun], str]) -> None:
    space, attempts, direction = case
    done = with_score(attempts)
    shares = {parameter.name: 1 / number for number, parameter in enumerate(space.parameters, 1)}
    for figure in (
        figures.progress(attempts, Objective("val/accuracy", direction)),
        figures.importance(space, shares),
        figures.parallel(space, done, Objective("val/accuracy", direction)),
        figures.slices(space, attempts, Objective("val/accuracy", direction)),
    ):
        assert_readable(figure)
        assert_apart(figure)


def test_every_parameter_is_named_with_its_condition() -> None:
    space = space_of(MIXED)
    attempts = attempts_of(space, 20)
    for figure in (
        figures.importance(space, {parameter.name: 0.5 for parameter in space.parameters}),
        figures.parallel(space, attempts[:3], Objective("val/accuracy", "max")),
        figures.slices(space, attempts, Objective("val/accuracy", "max")),
    ):
        said = "\n".join(words(figure))
        assert all(parameter.key in said for parameter in space.parameters)
        assert {"optimizer=adam", "optimizer=adadelta"} <= set(said.replace("among trials with ", "").split("\n"))


def test_progress_shows_the_best_so_far() -> None:
    figure = figures.progress(few([0.5, 0.4, None, 0.7, 0.6]), Objective("val/accuracy", "max"))
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata())[:-1] == [0, 1, 3, 4]
    assert list(line.get_ydata()) == [0.5, 0.5, 0.7, 0.7, 0.7]
    assert "best 0.7000, trial 3; higher is better" in words(figure)
    lower = figures.progress(few([0.5, 0.4, None, 0.7]), Objective("val/loss", "min"))
    assert list(lower.axes[0].lines[0].get_ydata()) == [0.5, 0.4, 0.4, 0.4]
    assert "best 0.4000, trial 1; lower is better" in words(lower)


@pytest.mark.parametrize(("direction", "far", "edge"), [("max", -1e9, 0), ("min", 1e9, 1)])
def test_failed_and_far_worse_trials_stand_at_the_edge_of_the_worst(direction: str, far: float, edge: int) -> None:
    good = [0.5 + 0.01 * number for number in range(10)]
    attempts = few([*good, None, far])
    for axes in (
        figures.progress(attempts, Objective("val/loss", direction)).axes[0],
        figures.slices(space_of(ONE), attempts, Objective("val/loss", direction)).axes[0],
    ):
        assert dots(axes, "failed")[:, 1] == dots(axes, "far worse")[:, 1] == axes.get_ylim()[edge]
        assert sorted(dots(axes, "complete")[:, 1]) == good
        low, high = axes.get_ylim()
        assert low < min(good) < max(good) < high
        assert high - low < 1


def test_pruned_trials_look_unlike_the_others() -> None:
    attempts = few([0.5, 0.6])
    axes = figures.progress(
        [attempts[0], replace(attempts[1], outcome="pruned")], Objective("val/accuracy", "max")
    ).axes[0]
    assert dots(axes, "complete").tolist() == [[0, 0.5]]
    assert dots(axes, "pruned").tolist() == [[1, 0.6]]


def test_progress_of_nothing_says_so() -> None:
    for attempts in ([], few([None, None])):
        figure = figures.progress(attempts, Objective("val/accuracy", "max"))
        assert "no trial is complete" in words(figure)
        assert_readable(figure)


def test_importance_compares_within_a_condition_only() -> None:
    space = space_of(MIXED)
    names = [parameter.name for parameter in space.parameters]
    said = words(figures.importance(space, dict(zip(names, (0.1, 0.2, 0.0, 0.7, 1.0, 1.0), strict=True))))
    always = [word for word in said if word in names or word == "optimizer.learning_rate"]
    assert (
        always
        == ["optimizer", "model.patience", "model.widths", "training.batch_size"] + ["optimizer.learning_rate"] * 2
    )
    assert said.index("among trials with optimizer=adadelta") > said.index("training.batch_size")
    assert said.count("1.00, as the only one that varies") == 2


def lines(figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    """Of parallel coordinates, from the first drawn to the last: (trials, rows, 2), and their colours (trials, 4)."""
    (found,) = (found for found in figure.axes[0].collections if isinstance(found, LineCollection))
    return np.array(found.get_segments()), np.asarray(found.get_colors())


def best_line(figure: Figure) -> np.ndarray:
    (found,) = (line for line in figure.axes[0].lines if same_color(line.get_color(), ORANGE) and line.get_zorder() > 2)
    return np.column_stack(found.get_data())


@pytest.mark.parametrize("direction", ["max", "min"])
def test_a_better_trial_is_darker_on_top_and_farther_right(direction: str) -> None:
    space = space_of(MIXED)
    done = [replace(attempt, outcome="complete") for attempt in with_score(attempts_of(space, 60))]
    figure = figures.parallel(space, done, Objective("val/accuracy", direction))
    drawn, colours = lines(figure)
    assert len(drawn) == len(done)
    brightness = colours[:, :3].sum(axis=1)
    assert (np.diff(brightness) <= 0).all()
    assert len(set(brightness)) == 4
    assert (np.diff(drawn[:, -1, 0]) >= 0).all()
    assert (best_line(figure) == drawn[-1]).all()
    best = (max if direction == "max" else min)(done, key=lambda attempt: attempt.score or 0.0)
    assert f"best: trial {best.number}" in words(figure)


def test_a_far_worse_trial_does_not_hide_the_differences_of_the_others() -> None:
    _, colours = lines(figures.parallel(space_of(ONE), few([0.1, 0.2, 0.3, 0.4, 1e9]), Objective("val/loss", "min")))
    assert len({tuple(colour) for colour in colours}) > 2


def test_equal_scores_look_equal() -> None:
    _, colours = lines(figures.parallel(space_of(ONE), few([0.1135] * 9), Objective("val/accuracy", "max")))
    assert len({tuple(colour) for colour in colours}) == 1


def test_a_line_passes_what_did_not_count_beside_the_axis() -> None:
    space = space_of(MIXED)
    attempts = with_score(attempts_of(space, 60))
    figure = figures.parallel(space, attempts, Objective("val/accuracy", "max"))
    drawn, _ = lines(figure)
    (stub,) = {text.get_position()[0] for text in figure.axes[0].texts if text.get_text() == "unused"}
    for row, optimizer in ((4, "adam"), (5, "adadelta")):
        unused = sum(attempt.values["optimizer"] != optimizer for attempt in attempts)
        assert np.isclose(drawn[:, row, 0], stub).sum() == unused > 0


def test_long_choices_stand_on_two_levels_in_full() -> None:
    space = space_of(TWELVE)
    figure = figures.parallel(space, attempts_of(space, 3), Objective("val/accuracy", "max"))
    assert {"dense_128_64", "dense_128_128", "cnn_adadelta_1"} <= set(words(figure))


def test_slices_place_values_by_magnitude_and_label_round_numbers() -> None:
    attempts = few([0.1, 0.2, 0.3])
    attempts[2].values["optimizer.learning_rate"] = 1e-2
    attempts[1].values["optimizer.learning_rate"] = 1e-3
    figure = figures.slices(space_of(ONE), attempts, Objective("val/accuracy", "max"))
    assert dots(figure.axes[0], "complete")[:, 0] == pytest.approx([0, 0.5, 1])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0.0001", "0.001", "0.01"]


def test_slices_mark_the_best_trial_where_its_parameters_counted() -> None:
    space = space_of(MIXED)
    attempts = attempts_of(space, 60)
    best = max(with_score(attempts), key=lambda attempt: attempt.score or 0.0)
    figure = figures.slices(space, attempts, Objective("val/accuracy", "max"))
    for parameter in space.parameters:
        axes = panel(figure, f"{parameter.key}\n{parameter.when}" if parameter.when else parameter.key)
        assert len(dots(axes, "best")) == (parameter.name in best.values)
        counted = [attempt for attempt in attempts if parameter.name in attempt.values]
        shown = sum(len(dots(axes, label)) for label in ("complete", "pruned", "far worse", "failed"))
        assert shown == len(counted)


def test_pending_trials_are_not_drawn() -> None:
    attempts = [*few([0.1, 0.2]), TrialRun("x", 2, {"optimizer.learning_rate": 1e-3}, None, "KILLED", "pending")]
    axes = figures.slices(space_of(ONE), attempts, Objective("val/accuracy", "max")).axes[0]
    assert sum(len(dots(axes, label)) for label in ("complete", "pruned", "far worse", "failed")) == 2


@pytest.mark.parametrize(
    ("names", "count"),
    [(("cat", "dog"), 1), (FASHION, 3), (LONG, 3), (tuple(f"species {number}" for number in range(30)), 3)],
)
def test_confusions_stand_side_by_side(names: tuple[str, ...], count: int) -> None:
    counts = guesses(names, 2000).confusion
    best = [(f"trial {number}, 97.41% right, its best seed", counts, names) for number in range(100, 100 + count)]
    figure = figures.confusions(best)
    panels = figure.axes[:count]
    assert [axes.get_title() for axes in panels] == [title for title, _, _ in best]
    written = [text.get_text() for text in panels[0].texts]
    assert written == ([str(value) for value in counts.ravel() if value] if len(names) <= 20 else [])
    assert len({axes.images[0].norm.vmax for axes in panels}) == 1
    assert_readable(figure)
    assert_apart(figure)


def test_confusions_of_different_data_sets_keep_their_names() -> None:
    best = [
        ("trial 1", guesses(("cat", "dog")).confusion, ("cat", "dog")),
        ("trial 2", guesses(FASHION).confusion, FASHION),
    ]
    said = words(figures.confusions(best))
    assert {"cat", "dog", *FASHION} <= set(said)


@pytest.mark.parametrize("direction", ["max", "min"])
@pytest.mark.parametrize("scores", [[0.5], [0.0, 0.0], [0.1, 0.9], [-1e9, 0.1, 0.2, 0.3, 0.31, 0.32, 0.33, 1e9]])
def test_limits_never_cut_off_the_best(direction: str, scores: list[float]) -> None:
    low, high = figures.limits(scores, Objective("val/loss", direction))
    assert low < (max(scores) if direction == "max" else min(scores)) < high
