"""The config of a run: its values, its choices, and what they build."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf


def build(section: Any, *given: Any, **more: Any) -> Any:
    """Calls the `_target_` of a section with its keys as plain values; errors arrive as the function raised them."""
    try:
        return instantiate(section, *given, **more, _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of dotted key and value of a plain nested dict, lists left whole."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def find_changes(cfg: DictConfig, choices: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Returns the choices that differ from the defaults, and the values, by dotted key, that differ within them."""
    from mnist_exp.config.compose import compose

    plain, default_choices = compose([])
    chosen = {group: choice for group, choice in choices.items() if group != "experiment"}
    base, _ = compose([f"{group}={choice}" for group, choice in chosen.items()]) if chosen else (plain, {})
    before = dict(flatten(OmegaConf.to_container(base)))
    now = dict(flatten(OmegaConf.to_container(cfg)))
    return (
        {group: choice for group, choice in choices.items() if default_choices.get(group) != choice},
        {key: value for key, value in now.items() if key not in before or before[key] != value},
    )


def differences(cfg: DictConfig, choices: Mapping[str, str]) -> list[str]:
    """What sets a config apart from the defaults: choices that differ, then `key=value` of what differs within them."""
    changed, values = find_changes(cfg, choices)
    return [f"{group}={choice}" for group, choice in changed.items()] + [
        f"{key}={_written(value)}" for key, value in values.items()
    ]


def _written(value: Any) -> str:
    return "null" if value is None else str(value).replace(" ", "")


@dataclass(frozen=True)
class Base:
    """A composed config before the values of a trial, interpolations unresolved, and the choices of its groups."""

    config: DictConfig
    choices: dict[str, str]


def _base(config: DictConfig, choices: dict[str, str]) -> Base:
    OmegaConf.set_struct(config, True)  # an unknown key is an error
    return Base(config, choices)
