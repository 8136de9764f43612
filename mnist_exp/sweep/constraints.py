"""What a trial must meet to win: limits of the net itself, checked before its training, and of its metrics."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mnist_exp.config.schema import OF_THE_NET, Limits
from mnist_exp.errors import ConfigError, Problem


@dataclass(frozen=True)
class Constraint:
    """The limits of a metric, or of a size of the net."""

    name: str
    limits: Limits

    @property
    def is_of_the_net(self) -> bool:
        """Whether it can be checked before the training."""
        return self.name in OF_THE_NET

    def violation(self, value: float) -> str:
        """Returns how a value lies outside of the limits, in words; empty if it does not."""
        low, high = self.limits.min, self.limits.max
        if high is not None and not value <= high:
            return f"{self.name} is {value:,.6g}, above the maximum of {high:,.6g}"
        if low is not None and not value >= low:
            return f"{self.name} is {value:,.6g}, below the minimum of {low:,.6g}"
        return ""


def read_constraints(limits: Mapping[str, Limits]) -> tuple[Constraint, ...]:
    """Returns the constraints of `sweep.constraints`."""
    return tuple(Constraint(name, one) for name, one in limits.items())


def find_violation(constraints: Iterable[Constraint], values: Mapping[str, float]) -> str:
    """Returns the first violation in words; empty if there is none. Raises ConfigError if a value is missing."""
    for constraint in constraints:
        if constraint.name not in values:
            known = ", ".join(sorted(name for name in values if not name.startswith("wall_seconds/")))
            raise ConfigError(Problem("sweep.constraints", f"must name metrics of a run: {known}", constraint.name))
        if violation := constraint.violation(values[constraint.name]):
            return violation
    return ""
