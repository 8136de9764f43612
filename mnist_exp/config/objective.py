"""An objective: a metric and its direction. The only place that knows whether more or less is better."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Self, TypeVar

Direction = Literal["max", "min"]
LESS_IS_BETTER = ("loss", "error", "entropy")  # endings of metric names
MORE_IS_BETTER = ("accuracy", "f1", "precision", "recall")

T = TypeVar("T")


@dataclass(frozen=True)
class Objective:
    """What a sweep optimizes or a callback monitors.

    metric: as the store names it (`val/accuracy`) or as Keras does (`val_accuracy`).
    """

    metric: str
    direction: Direction

    @classmethod
    def from_metric(cls, metric: str) -> Self:
        """Returns the objective of a metric, with the direction that follows from its name."""
        return cls(metric, known_direction(metric) or "max")

    @property
    def keras_name(self) -> str:
        """The metric's name in Keras's logs: `val_accuracy` of `val/accuracy`."""
        return self.metric.replace("/", "_")

    @property
    def worst(self) -> float:
        """A score that is worse than every other."""
        return -math.inf if self.direction == "max" else math.inf

    def rank(self, score: float) -> float:
        """Returns a sort key: the better the score, the lower."""
        return -score if self.direction == "max" else score

    def is_better(self, score: float, other: float) -> bool:
        """Whether `score` is better than `other`."""
        return self.rank(score) < self.rank(other)

    def best(self, candidates: Iterable[T], score: Callable[[T], float]) -> T:
        """Returns the candidate with the best score; the first of equals. Raises ValueError if there is none."""
        return min(candidates, key=lambda candidate: self.rank(score(candidate)))


def known_direction(metric: str) -> Direction | None:
    """Returns the direction that follows from the name of a metric; None if none does."""
    if metric.endswith(LESS_IS_BETTER):
        return "min"
    return "max" if metric.endswith(MORE_IS_BETTER) else None
