"""The configs of a sweep's trials: each combination of config groups is composed once, before the first trial."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mnist_exp.config.check import field_of, find_problems
from mnist_exp.config.compose import GROUPS, PACKAGE_SOURCE, Source, compose, flatten, parse_overrides, unknown_key
from mnist_exp.config.run_config import BaseConfig, RunConfig, format_value, plain
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.sweep.space import Choices, Parameter, Space, Values

MOST = 200  # combinations of config groups: composing one takes 90 ms


class TrialConfigs:
    """Makes the config of a trial from its values. Holds all that it needs: no file of conf/ is read again."""

    def __init__(self, space: Space, bases: Mapping[str, BaseConfig]) -> None:
        self.space, self.bases = space, dict(bases)
        self.groups = _groups(space)

    @classmethod
    def compose(
        cls,
        space: Space,
        overrides: Sequence[str],
        source: Source = PACKAGE_SOURCE,
        known: Mapping[str, BaseConfig] | None = None,
    ) -> "TrialConfigs":
        """Composes the configs of a command line; overrides: those that are swept included. known: configs that exist.

        Raises ConfigError with everything that cannot be composed, and every value that no trial could be run with.
        """
        groups = _groups(space)
        if groups.size > MOST:
            rule = f"may combine config groups in at most {MOST} ways, because each is composed before it starts"
            raise ConfigError(Problem("a sweep", rule, groups.size, "sweep fewer groups at once"))
        fixed = list(_fixed(space, overrides))
        bases = dict(known or {})
        problems: list[Problem] = []
        for values in groups.combinations():
            if _group_key(groups, values) in bases:
                continue
            chosen = [f"{key}={format_value(value)}" for key, value in groups.assigned(values).items()]
            try:
                composed = compose([*fixed, *chosen], source)
            except ConfigError as error:
                place = f"{' '.join(chosen)}: " if chosen else ""
                problems += [replace(problem, key=f"{place}{problem.key}") for problem in error.problems]
                continue
            bases[_group_key(groups, values)] = BaseConfig.from_composed(composed)
        configs = cls(space.typed(cls(space, bases)._is_integer), bases)
        problems += list(dict.fromkeys(configs._find_problems()))
        if problems:
            raise ConfigError(problems)
        return configs

    def first(self) -> RunConfig:
        """Returns the config with the first choice, or the lowest number, of everything."""
        return self.of(self.space.sample(lambda parameter: _ends(parameter)[0]))

    def defaults(self, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the values of a config without those of a trial, by dotted key, and its choices by group.

        given: choices of groups; of the others it is the first one.
        """
        chosen = self.groups.sample(lambda p: (given or {}).get(p.key, _ends(p)[0]))
        base = self.bases.get(_group_key(self.groups, chosen)) or next(iter(self.bases.values()))
        return {**dict(flatten(plain(base.config))), **base.choices}

    def of(self, values: Values) -> RunConfig:
        """Returns the config of a trial with these values."""
        base = self.bases[_group_key(self.groups, values)]
        return base.with_values({k: v for k, v in self.space.assigned(values).items() if k not in GROUPS})

    def _find_problems(self) -> Iterator[Problem]:
        """Yields what is wrong with any value of any parameter in the configs in which it would be used."""
        for combination in self.groups.combinations():
            base = self.bases.get(_group_key(self.groups, combination))
            if base is None:
                continue  # it does not compose, which is a problem already
            parameters = [p for p in self.space.active(combination) if p.key not in GROUPS]
            known = [p for p in parameters if base.find(p.key)[0]]
            for parameter in (p for p in parameters if p not in known):
                yield replace(unknown_key(parameter.key), key=f"{parameter.source}: {parameter.key}")
            yield from _check_values(base, known)

    def _is_integer(self, key: str) -> bool:
        """Whether an interval of this key is one of integers; Hydra's own are of real numbers."""
        for base in self.bases.values():
            known, default = base.find(key)
            if known:
                info = field_of(base.config, key)
                names = {name for name in ("int", "float") if info and name in str(info.annotation)}
                return names == {"int"} or (names != {"float"} and type(default) is int)
        return False


def _check_values(base: BaseConfig, parameters: Sequence[Parameter]) -> Iterator[Problem]:
    """Yields the problems of a config with the first values, then those that another value brings."""
    try:
        first = base.with_values({p.key: _ends(p)[0] for p in parameters})
    except ConfigError as error:
        yield from error.problems
        return
    before = list(find_problems(first.values))
    for problem in before:
        source = next((p.source for p in parameters if _speaks_of(problem, p.key)), None)
        yield replace(problem, key=f"{source}: {problem.key}") if source else problem
    for parameter in parameters:
        section = parameter.key.partition(".")[0] if "." in parameter.key else ""
        for value in _ends(parameter)[1:]:
            for problem in find_problems(first.with_values({parameter.key: value}).values, [section]):
                if problem not in before:
                    yield replace(problem, key=f"{parameter.source}: {problem.key}")


def _speaks_of(problem: Problem, key: str) -> bool:
    """Whether a problem is one of this key, or of a value inside of it."""
    return problem.key == key or problem.key.startswith((f"{key}.", f"{key}["))


def _fixed(space: Space, overrides: Sequence[str]) -> Iterator[str]:
    """The overrides that are the same for all trials; what `+key=1,2` adds is there with its first value."""
    firsts = {parameter.key: format_value(_ends(parameter)[0]) for parameter in space.parameters}
    for override in parse_overrides(overrides):
        if not override.is_sweep_override():
            yield str(override.input_line)
        elif (override.is_add() or override.is_force_add()) and override.key_or_group in firsts:
            yield f"{override.get_key_element()}={firsts[override.key_or_group]}"


def _groups(space: Space) -> Space:
    """The parameters that are config groups."""
    return Space(tuple(p for p in space.parameters if p.key in GROUPS))


def _group_key(groups: Space, values: Values) -> str:
    return json.dumps(groups.assigned(values))


def _ends(parameter: Parameter) -> Sequence[Any]:
    """The values to check: every choice, or lowest and highest number."""
    if isinstance(parameter.values, Choices):
        return parameter.values.values
    return parameter.values.low, parameter.values.high
