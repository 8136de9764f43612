"""Ends a trial that is worse than the median of the finished trials at the same epoch."""

import statistics
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field

from mnist_exp.config.objective import Objective

LEAST = 5  # scores of other trials that a median needs


@dataclass
class MedianPruner:
    """Knows the curves of finished trials. least: how many of them an epoch needs before a trial is pruned there.

    curves: by the definition of what they show; only curves of the same definition are compared.
    """

    least: int
    curves: dict[Hashable, list[tuple[float, ...]]] = field(default_factory=dict)

    def add(self, curve: tuple[float, ...], definition: Hashable = None) -> None:
        """Takes the objective of a finished trial, epoch by epoch."""
        self.curves.setdefault(definition, []).append(curve)

    def thresholds(self, definition: Hashable = None) -> tuple[float, ...]:
        """Returns the median of the objective per epoch, for the epochs that enough trials reached."""
        curves, medians = self.curves.get(definition, []), list[float]()
        while True:
            values = [curve[len(medians)] for curve in curves if len(curve) > len(medians)]
            if len(values) < self.least:
                return tuple(medians)
            medians.append(statistics.median(values))


def goes_on(score: float, seen: Collection[float], objective: Objective) -> bool:
    """Whether a score is not worse than the median of those seen, or these are too few to tell."""
    return len(seen) < LEAST or not objective.is_better(statistics.median(seen), score)
