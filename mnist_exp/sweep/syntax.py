"""Hydra's own sweep syntax, from a study's `sweep.space` and the command line, as one space."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep, Sweep, Transformer
from hydra.errors import HydraException

from mnist_exp.config.compose import GROUPS, did_you_mean, options
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.space import Choices, Condition, Numbers, Parameter, Space, written

FIXED = ("hydra", "sweep", "executor", "tracking", "name", "sweeps", "training.resume")
COMMAND_LINE = "the command line"


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
