"""What a sweep may choose, written in Hydra's own sweep syntax; values are tokens inside and plain values outside."""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep, Sweep, Transformer
from hydra.errors import HydraException

from mnist_exp.composition import options
from mnist_exp.errors import ConfigError

Values = dict[str, str | int | float]  # of a trial, by the names of its parameters; a choice is a token
FIXED = ("hydra", "sweep", "executor", "tracking", "name", "sweeps", "training.resume")


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

    low: float
    high: float
    step: float | None = None
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
                "write range(low,high,step) or choice(...), or give sweep.max_trials"
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

    def combinations(self) -> Iterator[Values]:
        """Every combination once, the last parameter changing fastest, as in Hydra's own multirun."""
        free = [p for p in self.parameters if p.when is None]
        for chosen in itertools.product(*(p.grid for p in free)):
            values = {p.name: value for p, value in zip(free, chosen, strict=True)}
            depending = [p for p in self.active(values) if p.when]
            for more in itertools.product(*(p.grid for p in depending)):
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


def parse(section: Mapping[str, Any], file: str, overrides: Sequence[str], choices: Mapping[str, str]) -> Space:
    """The space of a study and a command line, which wins.

    section: `sweep.space`, Hydra's sweep syntax by key, and under `when` the same by condition (`optimizer=adam`);
    file: where it was written; overrides: all of the command line; choices: those of the config groups as composed.
    Raises ConfigError with every fault found.
    """
    problems: list[str] = []
    given = list(map(OverridesParser.create().parse_override, overrides))
    taken = {override.key_or_group: override for override in given}
    found: dict[str, Parameter] = {}
    for key, text, when in _entries(section, file, problems):
        if key in taken:
            continue
        if when and when.key in taken and not taken[when.key].is_sweep_override():
            choices = {**choices, when.key: taken[when.key].get_value_element_as_str()}
        _add(found, problems, key, f"{key}={text}", file, when)
    for override in given:
        if override.is_sweep_override():
            _add(found, problems, override.key_or_group, override.input_line or "", "the command line", None)
    space = Space(tuple(_settled(found, choices, problems)))
    if problems:
        raise ConfigError("\n".join(problems))
    return space


def _entries(section: Mapping[str, Any], file: str, problems: list[str]) -> Iterator[tuple[str, str, Condition | None]]:
    for key, text in section.items():
        if key != "when":
            yield key, _text(text), None
            continue
        for condition, inside in text.items():
            parent, _, tokens = str(condition).partition("=")
            if not tokens or not isinstance(inside, Mapping):
                problems.append(
                    f"{file}: a condition must be written `optimizer=adam: {{key: values}}`, but got {condition!r}"
                )
                continue
            when = Condition(parent, tuple(token.strip() for token in tokens.split(",")))
            yield from ((key, _text(text), when) for key, text in inside.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _token(value)


def _token(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else Transformer.str(value)


def _add(
    found: dict[str, Parameter], problems: list[str], key: str, text: str, source: str, when: Condition | None
) -> None:
    try:
        override = OverridesParser.create().parse_override(text)
        parameter = Parameter(key, _values(override), source, when)
        if any(key == fixed or key.startswith((f"{fixed}.", f"{fixed}/")) for fixed in FIXED):
            raise ConfigError("it is the same for all trials of a sweep; give it one value")
        if parameter.name in found:
            raise ConfigError("it must be written once")
        found[parameter.name] = parameter
    except (HydraException, ConfigError) as error:
        problems.append(f"{source}: {key}: {' '.join(str(error).splitlines()[0].split())}")


def _settled(found: Mapping[str, Parameter], choices: Mapping[str, str], problems: list[str]) -> Iterator[Parameter]:
    """Parents first; conditions on what the sweep does not choose are true or false for all of it."""
    for parameter in (p for p in found.values() if p.when is None):
        yield parameter
    for parameter in found.values():
        if (when := parameter.when) is None:
            continue
        parent = found.get(when.key)
        if parent is None:
            if choices.get(when.key) in when.tokens:
                yield replace(parameter, when=None)
            elif when.key not in choices:
                problems.append(
                    f"{parameter.source}: {parameter.key}: its condition {when} must name a config group, or a key "
                    "that the space chooses without a condition"
                )
            continue
        tokens = parent.values.tokens if isinstance(parent.values, Choices) else ()
        if parameter.key in found:
            problems.append(f"{parameter.source}: {parameter.key} must stand either under conditions or outside")
        if usable := tuple(token for token in when.tokens if token in tokens):
            yield replace(parameter, when=Condition(when.key, usable))


def _values(override: Override) -> Choices | Numbers:
    """What a sweep override allows. Raises ConfigError with rule, value and remedy."""
    sweep, text = override.value(), override.get_value_string()
    if isinstance(sweep, Sweep) and (other := sweep.tags - {"log"}):
        raise ConfigError(f"a tag must be log, but got {', '.join(sorted(other))} in {text}")
    match sweep:
        case Glob():
            tokens = sweep.filter(options(override.key_or_group))
            if not tokens:
                known = ", ".join(options(override.key_or_group)) or "none, it is no config group"
                raise ConfigError(f"{text} must match a choice, but the choices are {known}")
            return Choices(tuple(tokens))
        case ChoiceSweep():
            tokens = list(dict.fromkeys(map(_token, sweep.list)))
            if sweep.tags:
                raise ConfigError(f"log is for interval and range, but got {text}")
            return Choices(_shuffled(tokens, override.key_or_group) if sweep.shuffle else tuple(tokens))
        case IntervalSweep():
            return _interval(sweep, text)
        case RangeSweep():
            return _range(sweep, text, override.key_or_group)
    raise ConfigError(
        f"its values must be a,b or choice(a,b), range(low,high,step) or interval(low,high), but got {text}; "
        "a single value belongs into the config itself"
    )


def _interval(sweep: IntervalSweep, text: str) -> Numbers:
    assert sweep.start is not None
    assert sweep.end is not None
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    if not low < high:
        raise ConfigError(f"an interval must go from low to high, but got {text}")
    if log and low <= 0:
        raise ConfigError(f"an interval by magnitude must begin above 0, but got {text}")
    return Numbers(low, high, log=log, whole=isinstance(low, int) and isinstance(high, int))


def _range(sweep: RangeSweep, text: str, key: str) -> Choices | Numbers:
    assert sweep.start is not None
    assert sweep.stop is not None
    start, stop, step = sweep.start, sweep.stop, sweep.step
    whole = all(isinstance(number, int) for number in (start, stop, step))
    if "log" in sweep.tags:
        if not (0 < start < stop and step > 1):
            raise ConfigError(f"a range by magnitude must begin above 0 and have a factor above 1, but got {text}")
        numbers = Numbers(start, math.nextafter(stop, 0), step, log=True, whole=whole, enumerable=True)
        return replace(numbers, high=numbers.values[-1])
    counted = list(sweep.range()) if step else []
    if not counted:
        raise ConfigError(f"a range must hold a number, but got {text}")
    if sweep.shuffle:
        return Choices(_shuffled(list(map(written, counted)), key))
    if step < 0 or len(counted) == 1:
        return Choices(tuple(map(written, counted)))
    return Numbers(counted[0], counted[-1], step, whole=whole, enumerable=True)


def _shuffled(tokens: list[str], key: str) -> tuple[str, ...]:
    """In an order of its own that stays the same: a grid is resumed by it."""
    random.Random(key).shuffle(tokens)
    return tuple(tokens)
