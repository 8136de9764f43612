"""The space of a sweep: its parameters and the plain values that each of them may take."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from mnist_exp.config.run_config import format_value
from mnist_exp.errors import ConfigError, Problem

Values = dict[str, Any]  # of a trial, by the names of its parameters
ROUNDING = 1e-9  # how far a number may lie outside of its limits, as a share of it or of them


@dataclass(frozen=True)
class Choices:
    """Plain values, as they stand in the config of a trial. 1, 1.0, true and '1' are different values."""

    values: tuple[Any, ...]
    enumerable: ClassVar = True

    def __contains__(self, value: Any) -> bool:
        return format_value(value) in map(format_value, self.values)

    def index(self, value: Any) -> int:
        """Returns the place of a value. Raises ValueError if it is not a choice."""
        return [format_value(choice) for choice in self.values].index(format_value(value))


@dataclass(frozen=True)
class Numbers:
    """Numbers from low to high, both included. whole: only integers.

    step: only low, low + step and so on. log: drawn evenly by magnitude, and step is a factor. enumerable: written as
    a range, so that a grid can try every number.
    """

    low: int | float  # two types, so that an integer stays one in the record
    high: int | float
    step: int | float | None = None
    log: bool = False
    whole: bool = False
    enumerable: bool = False

    def __contains__(self, value: Any) -> bool:
        if type(value) not in (int, float):
            return False
        close = partial(math.isclose, value, rel_tol=ROUNDING, abs_tol=ROUNDING * (self.high - self.low))
        return (
            any(map(close, self.values))
            if self.enumerable
            else self.low < value < self.high or any(map(close, (self.low, self.high)))
        )

    @property
    def values(self) -> list[float]:
        """The numbers of a range, in order."""
        assert self.step is not None
        if self.log:
            count = math.floor(math.log(self.high / self.low, self.step) + 1e-9) + 1
            numbers = [self.low * self.step**power for power in range(count)]
        else:
            count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
            numbers = [round(self.low + self.step * number, 12) for number in range(count)]
        return [round(number) for number in numbers] if self.whole else numbers

    def index(self, value: float) -> int:
        """Returns the place of the number of a range that is nearest to a value."""
        return min(range(len(self.values)), key=lambda place: abs(self.values[place] - value))


@dataclass(frozen=True)
class Condition:
    """The parameter `key` must have one of these values."""

    key: str
    values: tuple[Any, ...]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial with these values meets the condition."""
        return self.key in values and values[self.key] in Choices(self.values)

    def __str__(self) -> str:
        return f"{self.key}={','.join(map(format_value, self.values))}"


@dataclass(frozen=True)
class Parameter:
    """One key that a sweep chooses, always or under a condition.

    key: a config group or a dotted key. source: the file or command line it was written in. best: where good values
    lie, as its author believes; None if nothing is known.
    """

    key: str
    values: Choices | Numbers
    source: str
    when: Condition | None = None
    best: Any = None

    @property
    def name(self) -> str:
        """The key, with its condition before it: the same key may have another range under another condition."""
        return f"{self.when}/{self.key}" if self.when else self.key

    @property
    def grid(self) -> Sequence[Any]:
        """The values in order. Raises ConfigError for an interval, which cannot be counted."""
        if not self.values.enumerable:
            rule = "must have values that can be counted, because the sweep is a grid, but is an interval"
            remedy = "write range(low,high,step) or choice(...), or give sweep.sampler=tpe and sweep.max_trials=50"
            raise ConfigError(Problem(f"{self.source}: {self.key}", rule, remedy=remedy))
        return self.values.values


@dataclass(frozen=True)
class Space:
    """The parameters of a sweep. Conditions name parameters that have no condition themselves."""

    parameters: tuple[Parameter, ...]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial can have these values: a choice of each choice, a number of each interval."""
        return all(values[p.name] in p.values for p in self.active(values) if p.name in values)

    @property
    def finite(self) -> bool:
        """Whether a grid can try every combination."""
        return all(p.values.enumerable for p in self.parameters)

    def active(self, values: Mapping[str, Any]) -> Iterator[Parameter]:
        """The parameters that a trial with these values has."""
        return (p for p in self.parameters if p.when is None or p.when.holds(values))

    def sample(self, choose: Callable[[Parameter], Any]) -> Values:
        """Asks `choose` for a value of each parameter that the values before it leave active."""
        values: Values = {}
        for parameter in self.active(values):  # which sees the values before it
            values[parameter.name] = choose(parameter)
        return values

    def combinations(self) -> Iterator[Values]:
        """Every combination once. The last parameter changes fastest, as in Hydra's own multirun."""
        grids = {p.name: p.grid for p in self.parameters}
        free = [p for p in self.parameters if p.when is None]
        for chosen in itertools.product(*(grids[p.name] for p in free)):
            values = {p.name: value for p, value in zip(free, chosen, strict=True)}
            depending = [p for p in self.active(values) if p.when]
            for more in itertools.product(*(grids[p.name] for p in depending)):
                yield values | {p.name: value for p, value in zip(depending, more, strict=True)}

    @property
    def size(self) -> int:
        """The number of combinations."""
        total = 1
        for parameter in (p for p in self.parameters if p.when is None):
            children = [p for p in self.parameters if p.when and p.when.key == parameter.key]
            total *= sum(
                math.prod(len(p.grid) for p in children if p.when and p.when.holds({parameter.key: value}))
                for value in parameter.grid
            )
        return total

    def assigned(self, values: Values) -> dict[str, Any]:
        """Returns the values of a trial by config group or dotted key."""
        return {p.key: values[p.name] for p in self.active(values)}

    def typed(self, is_integer: Callable[[str], bool]) -> "Space":
        """Returns the space with intervals of integers for the keys that are integers; Hydra's are of real numbers."""

        def whole(parameter: Parameter) -> Parameter:
            numbers = parameter.values
            if not isinstance(numbers, Numbers) or numbers.enumerable or not is_integer(parameter.key):
                return parameter
            if not (float(numbers.low).is_integer() and float(numbers.high).is_integer()):
                return parameter
            low, high = int(numbers.low), int(numbers.high)
            return replace(parameter, values=replace(numbers, low=low, high=high, whole=True))

        return Space(tuple(whole(parameter) for parameter in self.parameters))
