"""The config of a run: its values, its choices, and what they build."""

import copy
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.config.compose import BUNDLES, Composed, compose, find_value, first_line, flatten
from mnist_exp.config.recorded import ExecutionWhitelist
from mnist_exp.config.schema import SECTIONS, SWEEP_SECTIONS, Flag, General, Section, keys_with, later_keys
from mnist_exp.config.targets import call_target
from mnist_exp.errors import ABSENT, ConfigError, Problem
from mnist_exp.secrets import without_secrets

S = TypeVar("S", bound=Section)
WORD = re.compile(r"[a-z_/][\w./%+-]*", re.ASCII | re.IGNORECASE)  # text that Hydra reads as text without quotes
RESOLVER = re.compile(r"\$\{[\w.]+:[^{}$]*\}")  # a call of a resolver without another interpolation inside
# Nets with a key for augmentation in the configs of version 0.1.
AUGMENTING = ("mnist_exp.models.mlp", "mnist_exp.models.cnn", "mnist_exp.models.resnet")
RESERVED = ("null", "true", "false", "inf", "nan")
SECTION_OF: Mapping[type[Section], str] = {layout.settings: name for name, layout in SECTIONS.items()}


@dataclass(frozen=True)
class RunConfig:
    """The values of a config, checked, interpolations resolved, and the choice of each of its groups."""

    values: Mapping[str, Any]
    choices: Mapping[str, str]

    @property
    def seed(self) -> int:
        """The seed of weights, order of the batches, dropout and augmentation."""
        return self.settings(General).seed

    @functools.cached_property
    def name(self) -> str:
        """The name that was given, else the choices and the seed.

        Between them is a hash of the values if they are not those of the choices. Runs that differ only in the seed
        share it.
        """
        if name := self.settings(General).name:
            return name
        made_of = f"{self.choices.get('model', 'model')}-{self.choices.get('optimizer', 'optimizer')}"
        mark = f"-{_digest(own)[:6]}" if (own := self._values_beside_choices()) else ""
        return f"{self.choices.get('experiment') or made_of}{mark}-s{self.seed}"

    def _values_beside_choices(self) -> dict[str, Any]:
        """Returns the values that affect training and are not those of the choices, the seed excepted.

        If a choice does not exist here, as that of a recorded config may not, these are all values.
        """
        try:
            before = dict(flatten(plain(_compose_choices(self.choices).config)))
        except ConfigError:
            before = {}
        now = dict(flatten(self.recorded))
        left_out = {"seed", "export", *keys_with(Flag.LABEL)}
        return {
            key: value
            for key, value in now.items()
            if key not in left_out and not key.startswith("tracking.") and (key not in before or before[key] != value)
        }

    @property
    def hash(self) -> str:
        """A hash of the values that affect training, the same for runs of every version.

        A key that an earlier version did not have, at the value that stands for its absence, is left out, and the one
        that only the first version had is put in.
        """
        later = later_keys()
        labels = {*keys_with(Flag.LABEL), "tracking"} - {"training.resume"}  # null, in the hashes of every version
        kept = {
            key: {
                name: one
                for name, one in value.items()
                if f"{key}.{name}" not in labels and later.get(f"{key}.{name}", ABSENT) != one
            }
            if isinstance(value, Mapping)
            else value
            for key, value in self.values.items()
            if key not in labels and key not in SWEEP_SECTIONS and later.get(key, ABSENT) != value
        }
        if kept.get("model", {}).get("_target_") in AUGMENTING:
            kept["model"] = {"augmentation": {"translation": 0.0, "rotation": 0.0, "zoom": 0.0}, **kept["model"]}
        return _digest(kept)[:16]

    def settings(self, kind: type[S]) -> S:
        """Returns the settings of this class, such as `config.settings(Training).epochs`."""
        section = SECTION_OF[kind]
        known = self.values[section] if section else self.values
        chosen = SECTIONS[section].kinds.get(str(known.get("kind")), kind)
        return chosen.model_validate({key: known[key] for key in chosen.model_fields if key in known})  # type: ignore[return-value]

    def build(self, section: str, *given: Any, **more: Any) -> Any:
        """Calls the `_target_` of a section with its own keys. given, more: what the program passes."""
        settings = SECTIONS[section].settings.model_fields
        own = {key: value for key, value in self.values[section].items() if key not in settings}
        return call_target(own, *given, **more)

    def with_values(self, values: Mapping[str, Any]) -> "RunConfig":
        """Returns this config with other values, by dotted key."""
        changed = copy.deepcopy(dict(self.values))
        for key, value in values.items():
            *sections, last = key.split(".")
            functools.reduce(dict.__getitem__, sections, changed)[last] = value
        return RunConfig(changed, self.choices)

    @property
    def recorded(self) -> dict[str, Any]:
        """The values that a run records: without secrets and those of sweeps, and as if it was not resumed."""
        kept = hide_secrets({key: value for key, value in self.values.items() if key not in SWEEP_SECTIONS})
        return {**kept, "training": {**kept["training"], "resume": None}}

    def to_yaml(self) -> str:
        """Returns the values that a run records, as YAML."""
        return OmegaConf.to_yaml(OmegaConf.create(self.recorded))

    def differences(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Returns what sets the config apart from the defaults: choices by group, and values within them by key."""
        base = _compose_choices({group: choice for group, choice in self.choices.items() if group not in BUNDLES})
        before, now = dict(flatten(plain(base.config))), dict(flatten(self.values))
        defaults = _compose_choices({}).choices
        choices = {group: choice for group, choice in self.choices.items() if defaults.get(group) != choice}
        return choices, {key: value for key, value in now.items() if key not in before or before[key] != value}

    def experiment_file(self, *comments: str) -> str:
        """Returns an experiment file that composes this config again: `experiment=NAME`, or --config-dir."""
        choices, values = self.differences()
        labels = keys_with(Flag.LABEL)
        kept: DictConfig = OmegaConf.create()
        for key, value in values.items():
            if key not in labels and key.partition(".")[0] not in SWEEP_SECTIONS:
                OmegaConf.update(kept, key, value)
        left_out = (*BUNDLES, "tracking")
        defaults = [{f"override /{group}": choice} for group, choice in choices.items() if group not in left_out]
        body = OmegaConf.merge({"defaults": defaults} if defaults else {}, kept)
        head = ["# @package _global_", *(f"# {comment}" for comment in comments)]
        return "\n".join([*head, OmegaConf.to_yaml(body)])


@dataclass(frozen=True)
class BaseConfig:
    """A composed config before the values of a trial, and the choices of its groups.

    Its references to other keys are not resolved. Resolvers were called: `${oc.env:DATA}` has the value it had then.
    whitelist: what it may run, if it is read from a store.
    """

    config: DictConfig
    choices: Mapping[str, str]
    whitelist: ExecutionWhitelist | None = None

    @classmethod
    def from_composed(cls, composed: Composed) -> Self:
        """Leaves out the sections of sweeps. Raises ConfigError if a resolver fails."""
        kept = [str(key) for key in composed.config if key not in SWEEP_SECTIONS]
        try:
            return cls(call_resolvers(OmegaConf.masked_copy(composed.config, kept)), composed.choices)
        except OmegaConfBaseException as error:
            raise ConfigError(Problem(str(error.full_key), "cannot be resolved", remedy=first_line(error))) from error

    def find(self, key: str) -> tuple[bool, Any]:
        """Returns whether the config has this dotted key, and its value, not resolved."""
        return find_value(self.config, key)

    def with_values(self, values: Mapping[str, Any]) -> RunConfig:
        """Returns the config with these values by dotted key. Raises ConfigError for a key that cannot be set."""
        config = copy.deepcopy(self.config)
        OmegaConf.set_struct(config, True)  # an unknown key is an error
        try:
            for key, value in values.items():
                OmegaConf.update(config, key, value)
            if self.whitelist:
                self.whitelist.check(OmegaConf.to_container(config), references=True)
            changed = plain(config)
            if self.whitelist:
                self.whitelist.check(changed)
            return RunConfig(changed, self.choices)
        except OmegaConfBaseException as error:
            raise ConfigError(Problem(str(error.full_key), "cannot be set", remedy=first_line(error))) from error

    def to_record(self) -> dict[str, Any]:
        """Returns plain values for the store, without secrets."""
        values: Any = OmegaConf.to_container(self.config)
        return {"config": hide_secrets(values), "choices": dict(self.choices)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], whitelist: ExecutionWhitelist) -> Self:
        """Restores it from the store. Raises ConfigError if it holds what the whitelist does not allow."""
        whitelist.check(record["config"], record["choices"], references=True)
        config = OmegaConf.create(record["config"])
        assert isinstance(config, DictConfig)
        return cls(config, record["choices"], whitelist)


def hide_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a config as they are recorded: addresses without their passwords."""
    hidden = copy.deepcopy(dict(values))
    for section, _, key in (name.rpartition(".") for name in keys_with(Flag.SECRET)):
        if isinstance(address := (hidden.get(section) or {}).get(key), str):
            hidden[section][key] = without_secrets(address)
    return hidden


def call_resolvers(config: DictConfig) -> DictConfig:
    """Returns the config with the values of its resolvers: `${oc.env:DATA}/a` becomes `/data/a`.

    A recorded config may call none. References stay, because the values of a trial may change what they refer to.
    """
    found: Any = OmegaConf.to_container(config)
    for key, text in flatten(found):
        if isinstance(text, str) and RESOLVER.search(text):
            whole = RESOLVER.fullmatch(text)
            OmegaConf.update(
                config,
                key,
                _resolve(config, key, whole) if whole else RESOLVER.sub(partial(_resolve_text, config, key), text),
            )
    return config


def _resolve_text(config: DictConfig, key: str, call: re.Match) -> str:
    return str(_resolve(config, key, call))


def _resolve(config: DictConfig, key: str, call: re.Match) -> Any:
    copied = copy.deepcopy(config)
    OmegaConf.update(copied, key, call.group())
    return OmegaConf.select(copied, key)


def _compose_choices(choices: Mapping[str, str]) -> Composed:
    """Composes these choices. Those of most runs are the defaults, which are composed once."""
    defaults = _compose(())
    if choices == defaults.choices:
        return defaults
    return _compose(tuple(f"{group}={choice}" for group, choice in choices.items()))


@functools.lru_cache(maxsize=8)
def _compose(overrides: tuple[str, ...]) -> Composed:
    return compose(overrides)


def _digest(values: Mapping[str, Any]) -> str:
    named = json.loads(json.dumps(values))  # in JSON every key is text: {1: 2.0, cat: 3.0} can be sorted
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def plain(config: DictConfig) -> dict[str, Any]:
    """Returns the values as a nested dict, interpolations resolved. Raises OmegaConf's errors if one cannot be."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return values


def format_value(value: Any) -> str:
    """Returns a value as it is typed in an override: null, true, [128,64], 'a b'. Hydra reads the same value back."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{','.join(map(format_value, value))}]"
        case dict():
            return f"{{{','.join(f'{key}:{format_value(item)}' for key, item in value.items())}}}"
        case str() if not WORD.fullmatch(value) or value.lower() in RESERVED:
            # Hydra doubles the backslashes before a quote and before the end.
            return "'" + re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), value) + "'"
    return str(value)
