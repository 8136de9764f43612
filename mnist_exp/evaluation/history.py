"""The metrics of a training, epoch by epoch."""

from dataclasses import dataclass, field


@dataclass
class History:
    """Metrics epoch by epoch, as Keras names them.

    used_epoch: the epoch (from 1) whose weights the model ended with; mode: how epochs ran, xla, windows or off.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    used_epoch: int = 0
    mode: str = "off"

    def best_epoch(self, monitor: str) -> int:
        """The epoch (from 1) with the best value of this metric; the first of equals."""
        sign = direction(monitor)
        return max(range(len(self.epochs)), key=lambda index: (sign * self.epochs[index][monitor], -index)) + 1

    def curves(self) -> dict[str, list[float]]:
        """One list a metric."""
        return {name: [epoch[name] for epoch in self.epochs] for name in (self.epochs[0] if self.epochs else {})}


def direction(monitor: str) -> int:
    """1 where more of this metric is better, -1 where less is."""
    return -1 if monitor.endswith("loss") else 1
