"""Ends a trial that is worse than the median of the finished trials at the same epoch."""

import statistics
from dataclasses import dataclass, field


@dataclass
class MedianPruner:
    """Knows the curves of finished trials. least: how many of them an epoch needs before a trial is pruned there."""

    least: int
    curves: list[tuple[float, ...]] = field(default_factory=list)

    def thresholds(self) -> tuple[float, ...]:
        """Returns the median of the objective per epoch, for the epochs that enough trials reached."""
        medians: list[float] = []
        while True:
            values = [curve[len(medians)] for curve in self.curves if len(curve) > len(medians)]
            if len(values) < self.least:
                return tuple(medians)
            medians.append(statistics.median(values))
