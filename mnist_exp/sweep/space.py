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

from mnist_exp.composition import GROUPS, did_you_mean, options
from mnist_exp.errors import ConfigError

Values = dict[str, str | int | float]  # of a trial, by the names of its parameters; a choice is a token
FIXED = ("hydra", "sweep", "executor", "tracking", "name", "sweeps", "training.resume")
COMMAND_LINE = "the command line"


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


def parse(section: Mapping[str, Any], file: str, overrides: Sequence[str], choices: Mapping[str, str]) -> Space:
    """The space of a study and a command line, which wins. Raises ConfigError with every fault found."""
    space, problems = parsed(section, file, overrides, choices)
    if problems:
        raise ConfigError("\n".join(problems))
    return space


def parsed(
    section: Mapping[str, Any], file: str, overrides: Sequence[str], choices: Mapping[str, str]
) -> tuple[Space, list[str]]:
    """What of a space can be used, and what is wrong with the rest, one line each.

    section: `sweep.space`, Hydra's sweep syntax by key, and under `when` the same by condition (`optimizer=adam`);
    file: where it was written; overrides: all of the command line; choices: those of the config groups as composed.
    """
    problems: list[str] = []
    given = map(OverridesParser.create().parse_override, overrides)
    taken = {override.key_or_group: override for override in given}  # the last of two counts
    plain = {key: _own(override) for key, override in taken.items() if not override.is_sweep_override()}
    found: dict[str, Parameter] = {}
    for key, text, when in _entries(section, file, problems):
        if key not in taken:
            _add(found, problems, key, f"{key}={text}", file, when)
    for key, override in taken.items():
        if override.is_sweep_override():
            _add(found, problems, key, override.input_line or "", COMMAND_LINE, None)
    return Space(tuple(_settled(found, {**choices, **plain}, problems))), problems


def _entries(section: Mapping[str, Any], file: str, problems: list[str]) -> Iterator[tuple[str, str, Condition | None]]:
    for key, text in section.items():
        if key != "when":
            yield key, _text(text), None
            continue
        for condition, inside in text.items() if isinstance(text, Mapping) else [(text, None)]:
            when = _condition(str(condition))
            if when is None or not isinstance(inside, Mapping):
                problems.append(
                    f"{file}: a condition must be written `optimizer=adam: {{key: values}}`, but got {condition!r}"
                )
                continue
            yield from ((key, _text(text), when) for key, text in inside.items())


def _condition(text: str) -> Condition | None:
    """None where the text is not key=token or key=token,token."""
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        return None
    value = override.value()
    if not override.is_sweep_override():
        tokens = [_own(override)]
    else:
        tokens = list(map(_token, value.list)) if isinstance(value, ChoiceSweep) else []
    return Condition(override.key_or_group, tuple(tokens)) if all(tokens) and tokens else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _token(value)


def _own(override: Override) -> str:
    """The token of an override that holds a single value."""
    return _token(override._value)  # value() takes the quotes off


def _token(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else Transformer.str(value)


def _add(
    found: dict[str, Parameter], problems: list[str], key: str, text: str, source: str, when: Condition | None
) -> None:
    try:
        override = OverridesParser.create().parse_override(text)
        if override.key_or_group != key:  # +key
            raise ConfigError("a key of your own must be in the config to be chosen; write model: {width: 8}, too")
        parameter = Parameter(key, _values(override), source, when)
        if key in GROUPS and isinstance(parameter.values, Numbers):
            raise ConfigError(f"its values must be names, but got {override.get_value_string()}")
        if any(key == fixed or key.startswith((f"{fixed}.", f"{fixed}/")) for fixed in FIXED):
            raise ConfigError("it is the same for all trials of a sweep; give it one value")
        if parameter.name in found:
            raise ConfigError("it must be written once")
        found[parameter.name] = parameter
    except (HydraException, ConfigError) as error:
        problems.append(f"{source}: {key}: {' '.join(str(error).splitlines()[0].split())}")


def _settled(found: Mapping[str, Parameter], plain: Mapping[str, str], problems: list[str]) -> Iterator[Parameter]:
    """Parents first; conditions on what the sweep does not choose are true or false for all of it.

    plain: the tokens of what it does not choose.
    """
    settled = {parameter.key: [parameter] for parameter in found.values() if parameter.when is None}
    yield from (parameter for parameters in settled.values() for parameter in parameters)
    conditional = [(parameter, parameter.when) for parameter in found.values() if parameter.when]
    nested = {parameter.key for parameter, _ in conditional}
    for parameter, when in conditional:
        parent = found.get(when.key)
        if wrong := _wrong_condition(parameter, when, parent, nested, plain):
            problems.append(f"{parameter.source}: {parameter.key}: its condition {when} {wrong}")
            continue
        tokens = parent.values.tokens if parent and isinstance(parent.values, Choices) else [plain.get(when.key)]
        if not (usable := tuple(token for token in when.tokens if token in tokens)):
            continue
        if other := next((p for p in settled.get(parameter.key, []) if _overlap(p.when, when)), None):
            problems.append(
                f"{parameter.source}: {parameter.key} must stand under conditions that exclude each other, or outside "
                f"of all, but got {when} and {other.when or 'none'}"
            )
            continue
        settled.setdefault(parameter.key, []).append(parameter)
        yield replace(parameter, when=Condition(when.key, usable) if parent else None)


def _wrong_condition(
    parameter: Parameter, when: Condition, parent: Parameter | None, nested: set[str], plain: Mapping[str, str]
) -> str:
    """Why a condition can never be looked at, as the rest of a sentence."""
    if when.key in nested:
        return "must name a key that has no condition itself"
    if parent is None and when.key not in plain and when.key not in GROUPS:
        return "must name a config group, or a key that the space chooses without a condition"
    if parent and not isinstance(parent.values, Choices):
        return f"must name a key with choices, but {when.key} has numbers; write choice(...) there"
    if parameter.key in GROUPS and when.key not in GROUPS:
        return "must name a config group, since it decides on one"
    known: Sequence[str] = options(when.key) if when.key in GROUPS else ()
    if parent and isinstance(parent.values, Choices) and parent.source == parameter.source:
        known = parent.values.tokens
    if known and (unknown := next((token for token in when.tokens if token not in known), None)):
        return f"must name one of {', '.join(known)}, but got {unknown}{did_you_mean(unknown, known)}"
    return ""


def _overlap(one: Condition | None, other: Condition) -> bool:
    """Whether both may hold at once."""
    return one is None or one.key != other.key or not set(one.tokens).isdisjoint(other.tokens)


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
    if not -math.inf < low < high < math.inf:
        raise ConfigError(f"an interval must go from low to high, but got {text}")
    if log and low <= 0:
        raise ConfigError(f"an interval by magnitude must begin above 0, but got {text}")
    return Numbers(low, high, log=log, whole=isinstance(low, int) and isinstance(high, int))


def _range(sweep: RangeSweep, text: str, key: str) -> Choices | Numbers:
    assert sweep.start is not None
    assert sweep.stop is not None
    start, stop, step = sweep.start, sweep.stop, sweep.step
    if not all(map(math.isfinite, (start, stop, step))):
        raise ConfigError(f"a range must have an end, but got {text}")
    whole = all(isinstance(number, int) for number in (start, stop, step))
    if "log" in sweep.tags:
        if not (0 < start < stop and step > 1):
            raise ConfigError(f"a range by magnitude must begin above 0 and have a factor above 1, but got {text}")
        numbers = Numbers(start, stop, step, log=True, whole=whole, enumerable=True)
        return replace(numbers, high=max((n for n in numbers.values if n < stop * (1 - 1e-9)), default=start))
    # Without the end, which Hydra takes in where the binary sum falls just short of it: range(0.1,0.4,0.1).
    counted = [round(n, 12) for n in sweep.range() if abs(n - stop) > 1e-9 * abs(step)] if step else []
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
