"""The configs of a sweep's trials: each combination of config groups is composed once, before the first trial."""

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from mnist_exp.config import check as checks
from mnist_exp.config.compose import FAILURES, GROUPS, OF_SWEEPS, compose, explain, unknown_key
from mnist_exp.config.run_config import Base, _base
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.space import Choices, Parameter, Space, Values, format_value

MOST = 200  # combinations of config groups: composing one takes 90 ms


class TrialConfigs:
    """Makes the config of a trial from its values; holds all it needs, so that no file of `conf` is read again."""

    def __init__(self, space: Space, bases: Mapping[str, Base]) -> None:
        self.space, self.bases = space, dict(bases)
        self.groups = _groups(space)

    @classmethod
    def composed(cls, space: Space, overrides: Sequence[str]) -> "TrialConfigs":
        """From the overrides of a command line, the ones that are swept included.

        Raises ConfigError with everything that cannot be composed, or that a trial could not be run with.
        """
        groups = _groups(space)
        if groups.size > MOST:
            raise ConfigError(
                f"a sweep may combine config groups in at most {MOST} ways, each of which is composed and checked "
                f"before it starts, but got {groups.size}; sweep fewer groups at once"
            )
        fixed = list(_fixed(space, overrides))
        bases, problems = {}, []
        for values in groups.combinations():
            chosen = [f"{key}={format_value(value)}" for key, value in groups.assigned(values).items()]
            try:
                config, choices = compose([*fixed, *chosen])
            except ConfigError as error:
                problems.append(f"{' '.join(chosen)}: {error}" if chosen else str(error))
                continue
            kept = [str(key) for key in config if key not in OF_SWEEPS]
            bases[_group_key(groups, values)] = _base(OmegaConf.masked_copy(config, kept), choices)
        configs = cls(space.typed(lambda key: _default(bases.values(), key)), bases)
        problems += dict.fromkeys(configs._problems())
        if problems:
            raise ConfigError("\n".join(problems))
        return configs

    def first(self) -> DictConfig:
        """The config with the first choice, or the lowest number, of everything."""
        return self.of(self.space.sample(lambda parameter: _ends(parameter)[0]))[0]

    def of(self, values: Values) -> tuple[DictConfig, dict[str, str]]:
        """The config and the choices of a trial with these values."""
        base = self.bases[_group_key(self.groups, values)]
        config = copy.deepcopy(base.config)
        for key, value in self.space.assigned(values).items():
            if key not in GROUPS:
                OmegaConf.update(config, key, value)
        return config, base.choices

    def to_record(self) -> dict[str, Any]:
        """Returns the configs as plain values, for a record."""
        return {
            key: {"config": OmegaConf.to_container(base.config), "choices": base.choices}
            for key, base in self.bases.items()
        }

    @classmethod
    def from_record(cls, space: Space, record: Mapping[str, Any]) -> "TrialConfigs":
        """Restores the configs from a record."""
        return cls(
            space, {key: _base(OmegaConf.create(base["config"]), base["choices"]) for key, base in record.items()}
        )

    def _problems(self) -> Iterator[str]:
        """What is wrong with any value of any parameter, each tried in the configs it would be used in."""
        checked: set[tuple[str | None, ...]] = set()
        for combination in self.groups.combinations():
            if (base := self.bases.get(_group_key(self.groups, combination))) is None:
                continue  # it does not compose, which was said
            active = [p for p in self.space.active(combination) if p.key not in GROUPS]
            firsts = [(p, _ends(p)[0]) for p in active]
            unknown = dict(_set(copy.deepcopy(base.config), firsts))  # a copy: seed.x would leave seed={} behind
            yield from unknown.values()
            config = copy.deepcopy(base.config)
            dict(_set(config, [(p, first) for p, first in firsts if p.key not in unknown]))
            before = list(checks.problems(config))
            yield from (_located(problem, active) for problem in before)
            for parameter in active:
                section = parameter.key.partition(".")[0]
                used = parameter.name, base.choices.get(section), base.choices.get("experiment")  # which set its values
                if used in checked or parameter.key in unknown:
                    continue
                checked.add(used)
                for value in _ends(parameter)[1:]:
                    tried = copy.deepcopy(config)
                    dict(_set(tried, [(parameter, value)]))
                    yield from (
                        f"{parameter.source}: {problem}" for problem in checks.problems(tried) if problem not in before
                    )


def _located(problem: str, parameters: Sequence[Parameter]) -> str:
    """A problem with the place of the first of these parameters that it speaks of."""
    named = (p.source for p in parameters if re.search(rf"(?<![\w.]){re.escape(p.key)}(?!\w)", problem))
    source = next(named, None)
    return f"{source}: {problem}" if source else problem


def _fixed(space: Space, overrides: Sequence[str]) -> Iterator[str]:
    """The overrides that are the same for all trials; what `+key=1,2` adds is there with its first value."""
    firsts = {parameter.key: format_value(_ends(parameter)[0]) for parameter in space.parameters}
    for override in map(OverridesParser.create().parse_override, overrides):
        if not override.is_sweep_override():
            yield str(override.input_line)
        elif (override.is_add() or override.is_force_add()) and override.key_or_group in firsts:
            yield f"{override.get_key_element()}={firsts[override.key_or_group]}"


def _groups(space: Space) -> Space:
    """The parameters that are config groups."""
    return Space(tuple(p for p in space.parameters if p.key in GROUPS))


def _group_key(groups: Space, values: Values) -> str:
    return json.dumps(groups.assigned(values))


def _default(bases: Any, key: str) -> Any:
    """What the configs say where nothing is swept."""
    for base in bases:
        try:
            found = OmegaConf.select(base.config, key)
        except FAILURES:
            continue
        if found is not None:
            return found
    return None


def _set(config: DictConfig, wanted: Sequence[tuple[Parameter, Any]]) -> Iterator[tuple[str, str]]:
    """Sets these keys in place; pairs of key and problem for those that are not there."""
    for parameter, value in wanted:
        try:
            OmegaConf.update(config, parameter.key, value)
        except (ConfigKeyError, ConfigAttributeError):
            yield parameter.key, f"{parameter.source}: {unknown_key(parameter.key)}"
        except FAILURES as error:
            yield parameter.key, f"{parameter.source}: {explain(error)}"


def _ends(parameter: Parameter) -> Sequence[Any]:
    """The values to try: every choice, or lowest and highest number."""
    if isinstance(parameter.values, Choices):
        return parameter.values.values
    return parameter.values.low, parameter.values.high
