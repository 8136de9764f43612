"""Trials of sweeps that were never run, for the tests of charts and reports."""

import random
from collections.abc import Callable
from typing import Any

from spaces import parse

from mnist_exp.sweep.space import Choices, Parameter, Space
from mnist_exp.tracking.stored_run import TrialRun

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
