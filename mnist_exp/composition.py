"""Composes a config from the choices in `conf`, and says what was meant when a name is wrong."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent
ROOT = next(folder for folder in (PACKAGE, PACKAGE.parent) if (folder / "conf").is_dir())  # wheel, checkout
CONF = ROOT / "conf"
os.environ["MNIST_EXP_SWEEPS"] = str(ROOT)  # conf/config.yaml looks for the group sweeps= there
GROUPS = (*sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"), "sweeps")
FAILURES = (HydraException, OmegaConfBaseException)


def compose(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """The config of these overrides, and the choice made in each group (`{"model": "cnn", ...}`).

    Raises ConfigError for an override that names no key or choice, with the nearest that exist.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3", job_name="mnist_exp"):
            cfg = hydra_compose("config", list(overrides), return_hydra_config=True)
    except FAILURES as error:
        raise ConfigError(explain(error)) from error
    ours = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    return ours, chosen(cfg.hydra)


def build(section: Any, *given: Any, **more: Any) -> Any:
    """Calls the `_target_` of a section with its keys as plain values; errors arrive as the function raised them."""
    try:
        return instantiate(section, *given, **more, _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None


def chosen(hydra_config: Any) -> dict[str, str]:
    """The choice made in each of our config groups, from Hydra's own node."""
    choices = hydra_config.runtime.choices
    return {str(group): str(choice) for group, choice in choices.items() if group in GROUPS and choice}


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of dotted key and value of a plain nested dict, lists left whole."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(cfg: DictConfig, choices: Mapping[str, str]) -> list[str]:
    """What sets a config apart from the defaults: the choices that differ, then `key=value` of what differs within them."""
    plain, default_choices = compose([])
    chosen = {group: choice for group, choice in choices.items() if group != "experiment"}
    base, _ = compose([f"{group}={choice}" for group, choice in chosen.items()]) if chosen else (plain, {})
    before = dict(flatten(OmegaConf.to_container(base)))
    now = dict(flatten(OmegaConf.to_container(cfg)))
    changed = [f"{group}={choice}" for group, choice in choices.items() if default_choices.get(group) != choice]
    return changed + [f"{key}={_written(now[key])}" for key in now if before.get(key) != now[key]]


def _written(value: Any) -> str:
    return "null" if value is None else str(value).replace(" ", "")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`, did you mean X?`, or nothing where no known word is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {near[0]}?" if near else ""


def explain(error: Exception) -> str:
    """One paragraph for a failed composition: what was wrong, what exists, what to do."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return (
            f"{group} has no choice {choice!r}{did_you_mean(choice, error.options)}; it has {', '.join(error.options)}"
        )
    if isinstance(error, OverrideParseException):
        return (
            f"an override must be key=value, quoted for the shell, but got {error.override!r} ({text.splitlines()[1]})"
        )
    if named := re.search(r"Could not (?:override|delete|append to) '([^']+)'|Key '([^']+)' is not in struct", text):
        key = named[1] or named[2]
        return _unknown_key(key.split("@")[0])
    cause = f" ({error.__cause__})" if isinstance(error, ConfigCompositionException) and error.__cause__ else ""
    return f"the config cannot be composed: {' '.join(text.split())}{cause}"


def _unknown_key(key: str) -> str:
    """What to say of a key that is not there: the choices that have it, else the nearest there is."""
    section, _, last = key.rpartition(".")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        known = [name for name, _ in flatten(OmegaConf.to_container(hydra_compose("config")))]
    choices = sorted((CONF / section).glob("*.yaml")) if section else []
    having = [path.stem for path in choices if last in list(OmegaConf.load(path))]
    if having:
        return (
            f"there is no key {key!r} here; these choices have it: {', '.join(f'{section}={name}' for name in having)}"
        )
    siblings = {name.removeprefix(f"{section}.") for name in known if name.startswith(f"{section}.")}
    hint = did_you_mean(last, [*siblings]) if siblings else did_you_mean(key, [*GROUPS, *known])
    keys = f"; {section} has {', '.join(sorted(siblings))}" if siblings else "; --cfg job prints every key"
    return f"there is no key {key!r}{hint}{keys}. +{key}=... adds one for code of your own"
