"""Composes a config from the choices in conf/. A failure becomes problems, each with its remedy."""

import io
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import hydra
import yaml  # type: ignore[import-untyped]
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_exp.config.schema import SWEEP_SECTIONS
from mnist_exp.errors import ConfigError, Problem, nearest
from mnist_exp.secrets import hide

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = next(folder for folder in (PACKAGE, PACKAGE.parent) if (folder / "conf").is_dir())  # wheel, checkout
CONF = ROOT / "conf"
GROUPS = (*sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"), "sweeps")
BUNDLES = ("experiment", "sweeps")  # groups whose choices set keys of several sections
# Hydra raises a bare ValueError for model=null.
FAILURES = (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError)
SWEEPER = "hydra_plugins.mnist_exp_sweeper.MnistExpSweeper"


@dataclass(frozen=True)
class Source:
    """Where Hydra reads: the primary config, its folder, and the folders of --config-dir."""

    name: str = "config"
    folder: str = str(CONF)
    more: tuple[str, ...] = ()

    def files(self, group: str) -> list[Path]:
        """Returns the files of a config group. Those of the user come last."""
        folders = dict.fromkeys((CONF, ROOT, Path(self.folder), *map(Path, self.more), *own_folders()))
        return [path for folder in folders for path in sorted((folder / group).glob("*.yaml"))]


PACKAGE_SOURCE = Source()


def own_folders() -> list[Path]:
    """Returns the folders in which config groups of the user's own may lie: ./ and ./conf, if that is not ours."""
    here = Path.cwd()
    return [here, *(folder for folder in [here / "conf"] if folder.is_dir() and folder != CONF)]


@dataclass(frozen=True)
class Composed:
    """A composed config, unchecked, and what it was composed from.

    config: without Hydra's own node; interpolations are not resolved. choices: the choice of each group that shapes a
    run. launcher: what Hydra would launch the trials of a sweep with; None for a single run.
    """

    config: DictConfig
    choices: Mapping[str, str]
    overrides: tuple[str, ...]
    source: Source = PACKAGE_SOURCE
    launcher: str | None = None


def compose(overrides: Sequence[str], source: Source = PACKAGE_SOURCE) -> Composed:
    """Composes the config of these overrides. Raises ConfigError with every override that cannot be followed."""
    try:
        config = _compose(overrides, source)
    except FAILURES as error:
        raise ConfigError(_explain(error, overrides, source)) from error
    return _composed(config, config.hydra, overrides, source)


def compose_sweep(overrides: Sequence[str], source: Source = PACKAGE_SOURCE) -> Composed:
    """Returns what Hydra hands to a sweep: the config of the overrides that give one value, and all overrides.

    Raises ConfigError with every override that cannot be followed.
    """
    try:
        fixed = [str(one.input_line) for one in parse_overrides(overrides) if not one.is_sweep_override()]
    except HydraException as error:
        raise ConfigError(_explain(error, overrides, source, swept=True)) from error
    return replace(compose(fixed, source), overrides=tuple(overrides))


def compose_command_line() -> list[Composed]:
    """Lets Hydra read `sys.argv`. Returns what is to be run, in order; nothing after --help, --cfg and the like.

    Hydra has returned before anything runs, so that no error of a run is taken for one of composing. Raises
    ConfigError.
    """
    found: list[tuple[DictConfig, Any, list[str], Source]] = []

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def collect(config: DictConfig) -> None:
        node = HydraConfig.get()
        paths = {provider: [one.path for one in node.runtime.config_sources if one.provider == provider]
                 for provider in ("main", "command-line")}  # fmt: skip
        source = Source(str(node.job.config_name), str(paths["main"][0]), tuple(paths["command-line"]))
        overrides: Any = OmegaConf.to_container(node.overrides.task)  # a value may be an interpolation
        found.append((config, node, overrides, source))

    before = os.environ.get("HYDRA_FULL_ERROR")
    HydraConfig.instance().cfg = None  # of an earlier call in this process
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors to us, to be told in our words
    printed = io.StringIO()  # by --cfg and --help
    try:
        with redirect_stdout(printed):
            collect()
    except FAILURES as error:
        if before == "1":
            raise
        arguments = get_args_parser().parse_args(sys.argv[1:])
        source = Source(more=(os.path.abspath(arguments.config_dir),) if arguments.config_dir else ())
        raise ConfigError(_explain(error, arguments.overrides, source, arguments.multirun)) from error
    finally:
        print(hide(printed.getvalue()), end="")
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before
    return [_composed(*one) for one in found]


def choices_of(group: str, source: Source = PACKAGE_SOURCE) -> list[str]:
    """Returns the choices of a config group; none if there is no such group."""
    return sorted({path.stem for path in source.files(group)})


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Returns the overrides as Hydra reads them. Raises Hydra's OverrideParseException for one that it cannot read."""
    return OverridesParser.create().parse_overrides(list(overrides))


def by_key(overrides: Sequence[str]) -> dict[str, str]:
    """Returns the text of overrides by the keys that they set; the last of two counts."""
    return {override.key_or_group: str(override.input_line) for override in parse_overrides(overrides)}


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields pairs of dotted key and value of a nested dict; lists stay whole."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def find_value(config: DictConfig, key: str) -> tuple[bool, Any]:
    """Returns whether a config has this dotted key, and its value, not resolved."""
    found: Any = OmegaConf.to_container(config)
    for name in key.split("."):
        if not isinstance(found, dict) or name not in found:
            return False, None
        found = found[name]
    return True, found


@lru_cache(maxsize=8)
def known_keys(source: Source = PACKAGE_SOURCE) -> Mapping[str, Sequence[str]]:
    """Returns every key of conf/ with the choices that have it: {"seed": (), "model.kernel": ("model=cnn",), ...}."""
    found: dict[str, list[str]] = {str(key): [] for key in OmegaConf.load(CONF / "config.yaml") if key != "hydra"}
    for group in (group for group in GROUPS if group not in BUNDLES):
        for path in source.files(group):
            read: Any = {}
            with suppress(OSError, *FAILURES):  # it is named if it is chosen
                read = OmegaConf.to_container(OmegaConf.load(path))
            for key, _ in flatten(read if isinstance(read, dict) else {}):
                if key != "defaults":
                    found.setdefault(f"{group}.{key}", []).append(f"{group}={path.stem}")
    return found


def first_line(error: Exception) -> str:
    """Returns the first line of a library's message, which a problem repeats as its remedy."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def unknown_key(key: str, source: Source = PACKAGE_SOURCE) -> Problem:
    """Returns the problem of a key that a config does not have."""
    known = known_keys(source)
    if choices := known.get(key):
        return Problem(key, "does not exist in this config", remedy=f"use it with {', '.join(choices)}")
    if higher := next((part for part in key.split(".")[1:] if part in known and part not in GROUPS), None):
        return Problem(key, "does not exist", remedy=f"{higher}=... is a key of the top level")
    alike = [name for name in (*GROUPS, *known) if ("." in name) == ("." in key)]
    return Problem(key, "does not exist", remedy=nearest(key, alike) or f"+{key}=... adds it")


def _compose(overrides: Sequence[str], source: Source) -> DictConfig:
    """As `hydra.compose`, with the folders of --config-dir."""
    search_path: Any = create_config_search_path(source.folder)
    for folder in source.more:
        search_path.prepend("command-line", f"file://{folder}", "schema")
    GlobalHydra.instance().clear()
    try:
        composer = Hydra.create_main_hydra2("mnist_exp", search_path)
        return composer.compose_config(
            source.name, list(overrides), RunMode.RUN, from_shell=False, with_log_configuration=False
        )
    finally:
        GlobalHydra.instance().clear()


def _composed(config: DictConfig, node: Any, overrides: Sequence[str], source: Source) -> Composed:
    """Leaves Hydra's node out. Raises ConfigError for overrides and files that Hydra ignores or merges silently."""
    sweeping = node.mode == RunMode.MULTIRUN and node.sweeper._target_ == SWEEPER
    parsed = parse_overrides(overrides)
    if found := [problem for one in parsed for problem in _malformed(one, swept=sweeping)]:
        raise ConfigError(found)
    shaping = [group for group in GROUPS if group not in SWEEP_SECTIONS]
    chosen = node.runtime.choices
    if hidden := [
        problem for group in GROUPS if chosen.get(group) for problem in _hidden(group, chosen[group], source)
    ]:
        raise ConfigError(hidden)
    return Composed(
        OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]),
        {group: str(chosen[group]) for group in shaping if chosen.get(group)},
        tuple(overrides),
        source,
        str(node.launcher._target_) if sweeping else None,
    )


def _hidden(group: str, choice: str, source: Source) -> Iterator[Problem]:
    """The files of the user's with the name of a choice of ours, which Hydra finds first."""
    name = Path(group, f"{choice}.yaml")
    first = CONF, ROOT, Path(source.folder)
    if not any((folder / name).is_file() for folder in first):
        return
    for folder in dict.fromkeys((*map(Path, source.more), *own_folders())):
        if folder not in first and (folder / name).is_file():
            rule = f"has the name of a choice of mnist_exp, {group}={choice}, which is found first"
            yield Problem(str(folder / name), rule, remedy=f"rename it, and choose it with {group}=NAME")


def _explain(error: Exception, overrides: Sequence[str], source: Source, swept: bool = False) -> list[Problem]:
    """Why composing failed: from the exception's fields and the parsed overrides, never from a message."""
    if isinstance(error, OverrideParseException):
        return [_unreadable(error.override)]
    if isinstance(error, yaml.YAMLError):
        return [_broken(error)]
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = sorted({*error.options, *choices_of(group, source)})
        return [Problem(group, "must be one of " + ", ".join(options), choice, nearest(choice, options))]
    parsed = parse_overrides(overrides)
    if found := [problem for one in parsed for problem in _malformed(one, swept)] or list(_unknown(parsed, source)):
        return found
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return [Problem(str(cause.full_key), "cannot be set", remedy=first_line(cause))]
    return [Problem("the config", "cannot be composed", remedy=" ".join(str(error).split()))]


def _unreadable(override: str) -> Problem:
    """An override that Hydra's grammar does not read. Most often a value needs quotes within quotes."""
    key, _, value = override.partition("=")
    rule, remedy = "must be KEY=VALUE in Hydra's syntax", "see --help"
    if key.strip("+~").replace(".", "").replace("_", "").isalnum() and value and value[0] not in "=[{":
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        line = f'{key}="{quoted}"'
        with suppress(HydraException):
            parse_overrides([line])
            rule += ", where a value with special characters stands in quotes"
            remedy = f"type {shlex.quote(line)}"
    return Problem(override, rule, remedy=remedy)


def _broken(error: yaml.YAMLError) -> Problem:
    """A file that is not YAML."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        at = f"line {mark.line + 1}, column {mark.column + 1}"
        return Problem(
            mark.name, f"must be YAML, but {error.problem} in {at}", remedy="correct this line or the one before"
        )
    return Problem(getattr(error, "name", "a config file"), "must be YAML", remedy=" ".join(str(error).split()))


def _malformed(override: Override, swept: bool = False) -> Iterator[Problem]:
    """What is wrong with the form of an override, though Hydra may accept it."""
    key, value = override.key_or_group, None if override.is_sweep_override() else override.value()
    needed = not override.is_delete() and not override.is_sweep_override() and key not in BUNDLES
    if override.is_sweep_override() and not swept:
        text = override.get_value_string()
        yield Problem(key, "takes one value", text, f"'{key}=[{text}]' is one list, -m runs once for each value")
    elif key in GROUPS and (override.is_add() or override.is_force_add()):
        yield Problem(key, "is chosen already", remedy=f"write {key}={override.get_value_string()} without +")
    elif override.package is not None:
        yield Problem(str(override.input_line), "must not name a package", remedy=f"write {key}=NAME")
    elif key in GROUPS and (isinstance(value, list) or (value is None and needed)):
        yield Problem(key, "must be one name", value, f"write {key}=NAME")


def _unknown(parsed: Sequence[Override], source: Source) -> Iterator[Problem]:
    """The keys that the chosen groups do not have; the groups are composed once more without the other keys."""
    chosen = [one for one in parsed if one.key_or_group in GROUPS and not isinstance(one.value(), dict)]
    config = OmegaConf.create()
    with suppress(*FAILURES):
        config = _compose([str(one.input_line) for one in chosen if not one.is_sweep_override()], source)
    for one in parsed:
        key, value = one.key_or_group, one.value()
        if one in chosen or one.is_add() or one.is_force_add():
            continue
        for name in [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key]:
            if not find_value(config, name)[0]:
                yield unknown_key(name, source)
