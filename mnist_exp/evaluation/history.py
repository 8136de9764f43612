"""The metrics of a training, epoch by epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from mnist_exp.config.objective import Objective

STATE = "state.json"  # the file with the history in a folder of checkpoints; it is written after the weights


@dataclass
class History:
    """Metrics of each epoch, with Keras's names. Epochs are counted from 1.

    used_epoch: the epoch whose weights the model has. is_of_epoch: false for other weights, such as averages, with
    which used_epoch is the last one. mode: how epochs were run, `xla`, `windows` or `off`.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    used_epoch: int = 0
    mode: str = "off"
    is_of_epoch: bool = True

    @classmethod
    def from_curves(cls, values: Mapping[str, Any]) -> Self:
        """Returns the history with these curves and `used_epoch`, as in a run's history.json."""
        curves = {name: curve for name, curve in values.items() if name != "used_epoch"}
        epochs = [dict(zip(curves, row, strict=True)) for row in zip(*curves.values(), strict=True)]
        return cls(epochs, values["used_epoch"])

    @property
    def used(self) -> dict[str, float]:
        """The metrics of the epoch whose weights the model has."""
        return self.epochs[self.used_epoch - 1]

    def best_epoch(self, monitor: str) -> int:
        """Returns the epoch with the best value of this metric; the first of equals."""
        epochs = range(1, len(self.epochs) + 1)
        return Objective.from_metric(monitor).best(epochs, lambda epoch: self.epochs[epoch - 1][monitor])

    def curves(self) -> dict[str, list[float]]:
        """Returns one list per metric, with one value per epoch."""
        return {name: [epoch[name] for epoch in self.epochs] for name in (self.epochs[0] if self.epochs else {})}
