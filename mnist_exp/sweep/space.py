"""What a sweep may choose; values are tokens of Hydra's syntax inside and plain values outside."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from mnist_exp.errors import ConfigError

Values = dict[str, str | int | float]  # of a trial, by the names of its parameters; a choice is a token


@dataclass(frozen=True)
class Choices:
    """Tokens of Hydra's syntax, such as `adam`, `null` or `[128,64]`."""

    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Numbers:
    """Numbers from low to high, both included; whole: only integers.

    step: only low, low + step ...; log: drawn evenly by magnitude, and step is a factor. enumerable: written as a
    range, so that a grid may hold it.
    """

    low: int | float  # kept apart, so that the record gives back what it was given
    high: int | float
    step: int | float | None = None
    log: bool = False
    whole: bool = False
    enumerable: bool = False

    @property
    def values(self) -> list[float]:
        """Those of a range, in order."""
        assert self.step is not None
        if self.log:
            count = math.floor(math.log(self.high / self.low, self.step) + 1e-9) + 1
            found = [self.low * self.step**power for power in range(count)]
        else:
            count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
            found = [round(self.low + self.step * number, 12) for number in range(count)]
        return [round(value) for value in found] if self.whole else found


@dataclass(frozen=True)
class Condition:
    """The parameter that must have one of these tokens."""

    key: str
    tokens: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.tokens)}"


@dataclass(frozen=True)
class Parameter:
    """One key that a sweep chooses, always or when another one has certain values.

    key: a config group or a dotted key; source: the file or command line it was written in.
    """

    key: str
    values: Choices | Numbers
    source: str
    when: Condition | None = None

    @property
    def name(self) -> str:
        """The key, with its condition before it: the same key may have another range under another condition."""
        return f"{self.when}/{self.key}" if self.when else self.key

    @property
    def grid(self) -> Sequence[str | float]:
        """Its values in order. Raises ConfigError for an interval, which has no end of them."""
        if isinstance(self.values, Choices):
            return self.values.tokens
        if not self.values.enumerable:
            raise ConfigError(
                f"a grid needs values that can be counted, but {self.key} is an interval ({self.source}); "
                "write range(low,high,step) or choice(...), or give sweep.algorithm=tpe and sweep.max_trials=50"
            )
        return self.values.values


@dataclass(frozen=True)
class Space:
    """The parameters of a sweep; conditions name parameters that have none themselves."""

    parameters: tuple[Parameter, ...]

    @property
    def finite(self) -> bool:
        """Whether a grid can hold it."""
        return all(isinstance(p.values, Choices) or p.values.enumerable for p in self.parameters)

    def active(self, values: Mapping[str, Any]) -> Iterator[Parameter]:
        """The parameters that count beside these values."""
        for parameter in self.parameters:
            if parameter.when is None or values.get(parameter.when.key) in parameter.when.tokens:
                yield parameter

    def filled(self, choose: Callable[[Parameter], str | float]) -> Values:
        """A value for each parameter that counts beside those chosen before it."""
        values: Values = {}
        for parameter in self.parameters:
            if parameter.when is None or values.get(parameter.when.key) in parameter.when.tokens:
                values[parameter.name] = choose(parameter)
        return values

    def combinations(self) -> Iterator[Values]:
        """Every combination once, the last parameter changing fastest, as in Hydra's own multirun."""
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
                math.prod(len(p.grid) for p in children if p.when and value in p.when.tokens)
                for value in parameter.grid
            )
        return total

    def assigned(self, values: Values) -> dict[str, str]:
        """Hydra keys and the tokens these values give them."""
        return {p.key: written(values[p.name]) for p in self.active(values)}

    def typed(self, default: Callable[[str], Any]) -> "Space":
        """The same, with intervals of integers where the config's own value is one; Hydra's are of real numbers."""

        def whole(parameter: Parameter) -> Parameter:
            numbers = parameter.values
            if type(default(parameter.key)) is not int or not isinstance(numbers, Numbers) or numbers.enumerable:
                return parameter
            if not (float(numbers.low).is_integer() and float(numbers.high).is_integer()):
                return parameter
            low, high = int(numbers.low), int(numbers.high)
            return replace(parameter, values=replace(numbers, low=low, high=high, whole=True))

        return Space(tuple(whole(parameter) for parameter in self.parameters))


def written(value: str | float) -> str:
    """A value as a token."""
    return value if isinstance(value, str) else repr(value)


def read(token: str) -> Any:
    """The value of a token: null is None, `[1,2]` a list."""
    return OverridesParser.create().parse_override(f"key={token}").value()
