"""Composes a config from the choices in `conf`, and says what was meant when a name is wrong."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.config.run_config import flatten
from mnist_exp.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = next(folder for folder in (PACKAGE, PACKAGE.parent) if (folder / "conf").is_dir())  # wheel, checkout
CONF = ROOT / "conf"
os.environ["MNIST_EXP_SWEEPS"] = str(ROOT)  # conf/config.yaml looks for the group sweeps= there
GROUPS = (*sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"), "sweeps")
OF_SWEEPS = ("sweep", "executor")  # sections that a run or trial has no use for
FAILURES = (HydraException, OmegaConfBaseException)


def compose(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """The config of these overrides, and the choice made in each group (`{"model": "cnn", ...}`).

    Raises ConfigError for an override that names no key or choice, with the nearest that exist.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3", job_name="mnist_exp"):
            cfg = hydra_compose("config", list(overrides), return_hydra_config=True)
    except (*FAILURES, ValueError) as error:  # Hydra raises a bare ValueError for model=null
        raise ConfigError(explain(error)) from error
    ours = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    return ours, chosen(cfg.hydra)


def chosen(hydra_config: Any) -> dict[str, str]:
    """The choice made in each config group that shapes a run, from Hydra's own node."""
    choices = hydra_config.runtime.choices
    shaping = set(GROUPS) - set(OF_SWEEPS)
    return {str(group): str(choice) for group, choice in choices.items() if group in shaping and choice}


def by_key(overrides: Sequence[str]) -> dict[str, str]:
    """Overrides by the keys they set, a `+` before them left out."""
    return {override.lstrip("+").partition("=")[0]: override for override in overrides}


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """` (did you mean X?)`, or nothing where no known word is near."""
    near = difflib.get_close_matches(word.lower(), known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def explain(error: Exception) -> str:
    """One paragraph for a failed composition: what was wrong, what exists, what to do."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return (
            f"{group} has no choice {choice!r}{did_you_mean(choice, error.options)}; it has {', '.join(error.options)}"
        )
    if isinstance(error, OverrideParseException):
        return f"an override must be key=value, lists 'key=[1,2]' in quotes, but got {error.override!r}; see --help"
    if several := re.match("Ambiguous value for argument '(.+?)=(.+)'", text):
        key, values = several.groups()
        return f"{key} takes one value, but got {values}; '{key}=[{values}]' is one list, and -m runs once with each"
    if again := re.search(r"Multiple values for (\S+)\.|force-add .+ not supported: '\+\+(\w+)", text):
        group = again[1] or again[2]
        return f"{group} is chosen already; leave out the + and give {group}=..."
    if named := re.search(
        r"Could not (?:override|delete) '([^']+)'|config\. '(.+)' does not|group '(.+)' does not", text
    ):
        key = next(filter(None, named.groups()))
        inside = re.search(r"full_key: (\S+)", str(error.__cause__))  # of a value that is a dictionary itself
        return unknown_key(max(key, inside[1], key=len) if inside else key)
    cause = f" ({error.__cause__})" if isinstance(error, ConfigCompositionException) and error.__cause__ else ""
    return f"the config cannot be composed: {' '.join(text.split())}{cause}"


def unknown_key(key: str) -> str:
    """What to say of a key that is not there: the choices that have it, else the nearest there is."""
    known = _known_keys()
    if choices := known.get(key):
        return f"there is no key {key!r} here; these choices have it: {', '.join(choices)}"
    section, _, last = key.rpartition(".")
    siblings = [name.removeprefix(f"{section}.") for name in known if section and name.startswith(f"{section}.")]
    hint = did_you_mean(last, siblings) if siblings else did_you_mean(key, [*GROUPS, *known])
    return f"there is no key {key!r}{hint}; --cfg job prints every key, +{key}=... adds one for code of your own"


def _known_keys() -> dict[str, list[str]]:
    """Every key there is, with the choices that have it: {"seed": [], "model.kernel": ["model=cnn"], ...}."""
    found: dict[str, list[str]] = {str(key): [] for key in OmegaConf.load(CONF / "config.yaml")}
    for path in sorted(CONF.glob("*/*.yaml")):
        for key, _ in flatten(OmegaConf.to_container(OmegaConf.load(path))):
            found.setdefault(f"{path.parent.name}.{key}", []).append(f"{path.parent.name}={path.stem}")
    return found


def options(group: str) -> list[str]:
    """The choices of a config group; none where there is no such group."""
    folder = (ROOT if group == "sweeps" else CONF) / group
    return sorted(path.stem for path in folder.glob("*.yaml"))
