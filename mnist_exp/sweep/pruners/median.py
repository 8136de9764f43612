"""Ends a trial that is below the median of its finished siblings."""

import statistics
from dataclasses import dataclass, field


@dataclass
class Medians:
    """Medians of the objective of finished trials, epoch by epoch, where enough of them got that far."""

    least: int
    curves: list[tuple[float, ...]] = field(default_factory=list)

    def now(self) -> tuple[float, ...]:
        """One number an epoch, as many as are known."""
        found: list[float] = []
        while True:
            values = [curve[len(found)] for curve in self.curves if len(curve) > len(found)]
            if len(values) < self.least:
                return tuple(found)
            found.append(statistics.median(values))
