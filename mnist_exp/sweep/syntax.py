"""Hydra's own sweep syntax, from a study's `sweep.space` and the command line, read into one space."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep, Sweep
from hydra.errors import HydraException

from mnist_exp.config.compose import GROUPS, Source, choices_of, first_line, parse_overrides
from mnist_exp.config.run_config import format_value
from mnist_exp.errors import ConfigError, Problem, nearest
from mnist_exp.sweep.space import Choices, Condition, Numbers, Parameter, Space

FIXED = ("hydra", "sweep", "executor", "tracking", "name", "sweeps", "training.resume")
COMMAND_LINE = "the command line"
BEST = "best="  # begins a tag that says where good values lie: tag('best=1e-3', log, interval(1e-4, 1e-1))


def read_space(
    section: Mapping[str, Any], file: str, overrides: Sequence[str], choices: Mapping[str, str], source: Source
) -> tuple[Space, list[Problem]]:
    """Returns the part of a space that can be used, and the problems of the rest.

    section: `sweep.space`, Hydra's sweep syntax by key, and under `when` the same by condition (`optimizer=adam`).
    file: where the section was written. overrides: the command line, which wins over the file. choices: those of the
    config groups as composed.
    """
    reader, taken = _Reader(source), {override.key_or_group: override for override in parse_overrides(overrides)}
    for key, text, when in reader.entries(section, file):
        if key not in taken:
            reader.add(key, text, file, when)
    for key, override in taken.items():
        if override.is_sweep_override():
            reader.add_override(key, override, COMMAND_LINE, None)
    plain = {key: _value_of(key, one._value) for key, one in taken.items() if not one.is_sweep_override()}
    return Space(tuple(reader.resolve_conditions({**choices, **plain}))), reader.problems


def read_parameter(before: Parameter, text: str, source: Source) -> Parameter:
    """Returns a parameter with the values of a text in the place of those before. Raises ConfigError."""
    reader = _Reader(source)
    reader.add(before.key, text, before.source, before.when)
    if reader.problems:
        raise ConfigError([replace(problem, key=before.name) for problem in reader.problems])
    (parameter,) = reader.parameters.values()
    return parameter


def read_value(key: str, text: str) -> Any:
    """Returns the plain value of a text in Hydra's syntax: `null` is None, `[1,2]` a list. key: its config key."""
    return _value_of(key, OverridesParser.create().parse_override(f"key={text}")._value)


@dataclass
class _Reader:
    """Collects parameters, by name, and problems. configs: where the choices of config groups are."""

    configs: Source
    problems: list[Problem] = field(default_factory=list)
    parameters: dict[str, Parameter] = field(default_factory=dict)

    def entries(self, section: Mapping[str, Any], file: str) -> Iterator[tuple[str, Any, Condition | None]]:
        """Keys of a section with their text and condition."""
        for key, text in section.items():
            if key != "when":
                yield key, text, None
                continue
            for condition, inside in text.items() if isinstance(text, Mapping) else [(text, None)]:
                when = _condition(str(condition))
                if when is None or not isinstance(inside, Mapping):
                    rule = "must hold conditions in the form `optimizer=adam: {key: values}`"
                    self.problems.append(Problem(f"{file}: when", rule, condition))
                    continue
                yield from ((key, text, when) for key, text in inside.items())

    def add(self, key: str, text: Any, source: str, when: Condition | None) -> None:
        """Adds the parameter that a file describes."""
        if not isinstance(text, str):
            self.problems.append(_no_sweep(f"{source}: {key}", text))
            return
        try:
            override = OverridesParser.create().parse_override(f"{key}={text}")
        except HydraException as error:
            self.problems.append(_unreadable(f"{source}: {key}", text, error))
        else:
            self.add_override(key, override, source, when)

    def add_override(self, key: str, override: Override, source: str, when: Condition | None) -> None:
        """Adds the parameter that an override describes."""
        place = f"{source}: {key}"
        try:
            if override.key_or_group != key:  # +key
                remedy = "write model: {width: 8}, too"
                raise ConfigError(Problem(place, "must be in the config before the file chooses it", remedy=remedy))
            values = _values(override, place, self.configs)
            parameter = Parameter(key, values, source, when, _best(override, values, place))
            if any(key == fixed or key.startswith((f"{fixed}.", f"{fixed}/")) for fixed in FIXED):
                raise ConfigError(Problem(place, "is the same for all trials of a sweep", remedy="give it one value"))
            if parameter.name in self.parameters:
                raise ConfigError(Problem(place, "must be written once"))
            self.parameters[parameter.name] = parameter
        except HydraException as error:
            self.problems.append(_unreadable(place, override.get_value_string(), error))
        except ConfigError as error:
            self.problems += error.problems

    def resolve_conditions(self, plain: Mapping[str, Any]) -> Iterator[Parameter]:
        """Parameters without a condition first. A condition on what the sweep does not choose is decided here.

        plain: the values of keys and groups that the sweep does not choose.
        """
        always = [parameter for parameter in self.parameters.values() if parameter.when is None]
        yield from always
        resolved = {parameter.key: [parameter] for parameter in always}
        for parameter, when in [(one, one.when) for one in self.parameters.values() if one.when]:
            parent = self.parameters.get(when.key)
            if problem := self._condition_problem(parameter, when, plain):
                self.problems.append(problem)
                continue
            values = parent.values if parent and isinstance(parent.values, Choices) else Choices((plain.get(when.key),))
            if not (usable := tuple(value for value in when.values if value in values)):
                continue
            if other := next((p for p in resolved.get(parameter.key, []) if _overlap(p.when, when)), None):
                rule = "must stand under conditions that exclude each other, or outside of all"
                place = f"{parameter.source}: {parameter.key}"
                self.problems.append(Problem(place, rule, f"{when} and {other.when or 'none'}"))
                continue
            resolved.setdefault(parameter.key, []).append(parameter)
            yield replace(parameter, when=Condition(when.key, usable) if parent else None)

    def _condition_problem(self, parameter: Parameter, when: Condition, plain: Mapping[str, Any]) -> Problem | None:
        """The problem of a condition that can never be decided."""
        place, parent = f"{parameter.source}: {parameter.key}", self.parameters.get(when.key)
        if any(one.when and one.key == when.key for one in self.parameters.values()):
            return Problem(place, "must have a condition on a key that has no condition itself", str(when))
        if parent is None and when.key not in plain and when.key not in GROUPS:
            rule = "must have a condition on a config group, or on a key that the space chooses without a condition"
            return Problem(place, rule, str(when))
        if parent and not isinstance(parent.values, Choices):
            remedy = f"{when.key} has numbers, write choice(...) there"
            return Problem(place, "must have a condition on a key with choices", str(when), remedy)
        if parameter.key in GROUPS and when.key not in GROUPS:
            return Problem(place, "is a config group, so its condition must be on one, too", str(when))
        known: Sequence[Any] = choices_of(when.key, self.configs) if when.key in GROUPS else ()
        if parent and isinstance(parent.values, Choices) and parent.source == parameter.source:
            known = parent.values.values
        words = list(map(format_value, known))
        if known and (unknown := next((v for v in map(format_value, when.values) if v not in words), None)):
            rule = f"must have a condition on one of {', '.join(words)}"
            return Problem(place, rule, f"{when.key}={unknown}", nearest(unknown, words))
        return None


def _unreadable(place: str, text: str, error: HydraException) -> Problem:
    reason = " ".join(str(error).splitlines()[0].split())
    return Problem(place, "must be values in Hydra's sweep syntax", text, reason)


def _no_sweep(place: str, value: Any) -> Problem:
    rule = "must be a,b or choice(a,b), range(low,high,step) or interval(low,high)"
    return Problem(place, rule, value, "a single value belongs into the config itself")


def _condition(text: str) -> Condition | None:
    """Returns None if the text is not key=value or key=value,value."""
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        return None
    parsed: Any = [override._value]
    if override.is_sweep_override():
        parsed = override._value.list if isinstance(override._value, ChoiceSweep) else []
    if not parsed or "" in parsed:
        return None
    return Condition(override.key_or_group, tuple(_value_of(override.key_or_group, value) for value in parsed))


def read_assignments(words: Sequence[str]) -> dict[str, Any]:
    """Returns the plain values of `key=value` words. Raises ConfigError for one that gives none, or several."""
    try:
        overrides = parse_overrides(words)
    except HydraException as error:
        rule = f"must be KEY=VALUE ({first_line(error)})"
        raise ConfigError(Problem(" ".join(words), rule)) from error
    if swept := next((override for override in overrides if override.is_sweep_override()), None):
        raise ConfigError(Problem(swept.key_or_group, "must have one value", swept.get_value_string()))
    keys = [override.key_or_group for override in overrides]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ConfigError(Problem(twice, "must be given once"))
    return {key: _value_of(key, override._value) for key, override in zip(keys, overrides, strict=True)}


def _value_of(key: str, parsed: Any) -> Any:
    """Returns the plain value of what Hydra parsed, without quotes. The choice of a group is always text."""
    value: Any = Override._convert_value(parsed)
    return value if key not in GROUPS or isinstance(value, str | list | dict) else format_value(value)


def _overlap(one: Condition | None, other: Condition) -> bool:
    """Whether both may hold at once."""
    return one is None or one.key != other.key or any(value in Choices(one.values) for value in other.values)


def _values(override: Override, place: str, configs: Source) -> Choices | Numbers:
    """Returns what a sweep override allows. Raises ConfigError."""
    sweep, text, key = override.value(), override.get_value_string(), override.key_or_group
    if isinstance(sweep, Sweep) and (other := [tag for tag in sorted(sweep.tags) if not _is_known(tag)]):
        raise ConfigError(Problem(place, "must have no tag but log and 'best=VALUE'", ", ".join(other)))
    match sweep:
        case Glob():
            if names := sweep.filter(choices_of(key, configs)):
                return Choices(tuple(names))
            known = ", ".join(choices_of(key, configs)) or "none, it is not a config group"
            raise ConfigError(Problem(place, f"must match a choice ({known})", text))
        case ChoiceSweep():
            if "log" in sweep.tags:
                raise ConfigError(Problem(place, "must be an interval or a range to be tagged with log", text))
            values = list({format_value(v): v for v in (_value_of(key, one) for one in sweep.list)}.values())
            if key in GROUPS and not all(isinstance(value, str) for value in values):
                raise ConfigError(Problem(place, "must be names", text, "write them without brackets"))
            return Choices(_shuffle(values, key) if sweep.shuffle else tuple(values))
        case IntervalSweep() | RangeSweep() if key in GROUPS:
            raise ConfigError(Problem(place, "must be names", text))
        case IntervalSweep():
            return _interval(sweep, text, place)
        case RangeSweep():
            return _range(sweep, text, place, key)
    raise ConfigError(_no_sweep(place, sweep))


def _is_known(tag: str) -> bool:
    return tag == "log" or tag.startswith(BEST)


def _best(override: Override, allowed: Choices | Numbers, place: str) -> Any:
    """Returns the value of the tag 'best=VALUE', None without one. Raises ConfigError if the sweep cannot take it."""
    texts = [tag.removeprefix(BEST) for tag in getattr(override.value(), "tags", ()) if tag.startswith(BEST)]
    if not texts:
        return None
    try:
        values = [read_value(override.key_or_group, text) for text in texts]
    except HydraException:
        values = []
    if isinstance(allowed, Choices):
        holds = [value in allowed for value in values]
    else:
        numbers = [value for value in values if type(value) in (int, float)]
        holds = [allowed.low <= number <= allowed.high for number in numbers]
    if holds != [True]:
        raise ConfigError(Problem(place, "must name one of its values as best", ", ".join(sorted(texts))))
    return values[0]


def _interval(sweep: IntervalSweep, text: str, place: str) -> Numbers:
    assert sweep.start is not None
    assert sweep.end is not None
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    if not -math.inf < low < high < math.inf:
        raise ConfigError(Problem(place, "must be an interval from low to high", text))
    if log and low <= 0:
        raise ConfigError(Problem(place, "must be an interval that begins above 0, because of its tag log", text))
    return Numbers(low, high, log=log, whole=isinstance(low, int) and isinstance(high, int))


def _range(sweep: RangeSweep, text: str, place: str, key: str) -> Choices | Numbers:
    assert sweep.start is not None
    assert sweep.stop is not None
    start, stop, step = sweep.start, sweep.stop, sweep.step
    if not all(map(math.isfinite, (start, stop, step))):
        raise ConfigError(Problem(place, "must be a range with an end", text))
    whole = all(isinstance(number, int) for number in (start, stop, step))
    if "log" in sweep.tags:
        if not (0 < start < stop and step > 1):
            rule = "must be a range that begins above 0 and has a factor above 1, because of its tag log"
            raise ConfigError(Problem(place, rule, text))
        numbers = Numbers(start, stop, step, log=True, whole=whole, enumerable=True)
        return replace(numbers, high=max((n for n in numbers.values if n < stop * (1 - 1e-9)), default=start))
    # Without the end, which Hydra takes in where the binary sum falls just short of it: range(0.1,0.4,0.1).
    counted = [round(n, 12) for n in sweep.range() if abs(n - stop) > 1e-9 * abs(step)] if step else []
    if not counted:
        raise ConfigError(Problem(place, "must be a range that holds a number", text))
    if sweep.shuffle:
        return Choices(_shuffle(counted, key))
    if step < 0 or len(counted) == 1:
        return Choices(tuple(counted))
    return Numbers(counted[0], counted[-1], step, whole=whole, enumerable=True)


def _shuffle(values: list[Any], key: str) -> tuple[Any, ...]:
    """Returns the values in an order that follows from the key, because a grid is resumed by its order."""
    random.Random(key).shuffle(values)
    return tuple(values)
