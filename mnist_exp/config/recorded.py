"""What a config that is read back from a store may run. Whoever writes to the store has written it.

A config that the user types, or that lies in the user's own files, is the user's code and is not checked here.
"""

import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mnist_exp.config.compose import CONF, GROUPS
from mnist_exp.config.targets import import_target
from mnist_exp.errors import ConfigError, Problem

OWN = ("mnist_exp", "hydra_plugins")  # of these only the functions that conf/ names
STORES = ("mlruns", "mlartifacts")  # folders that MLflow writes uploaded files to
DATABASE = "mlflow.db"
REFERENCE = re.compile(r"\$\{[\w.\[\]]+\}")  # to another key of the same config; it calls no resolver
# Classes of Keras that only compute. Others read or write files, or call what they are given.
OF_KERAS = re.compile(
    r"keras\.(losses|metrics|optimizers|optimizers\.schedules)\.[A-Z]\w*"
    r"|keras\.layers\.(Random[A-Z]\w*|RandAugment|AugMix|AutoContrast|Equalization|Solarization|Gaussian\w+)"
    r"|keras\.callbacks\.(EarlyStopping|ReduceLROnPlateau|SwapEMAWeights|TerminateOnNaN)"
)
CHOICE = re.compile(r"[\w-]+([./][\w-]+)*")  # without `..`: Hydra would read a file elsewhere
RULE = "must be named by conf/ or be a function of the current folder, because this config is read from a store"


@dataclass(frozen=True)
class ExecutionWhitelist:
    """What recorded configs may run: what conf/ names, functions of the current folder, and further entries.

    entries: as in the execution whitelist of Hydra 1.4: the name of a target, or a prefix such as `my_nets.*`.
    stores: folders of stores, whose files are never code of the user. option: how an entry is typed.
    """

    entries: tuple[str, ...] = ()
    stores: tuple[Path, ...] = ()
    option: str = "tracking.execution_whitelist=[{}]"

    def check(self, values: Any, choices: Mapping[str, str] | None = None, *, references: bool = False) -> None:
        """Raises ConfigError with everything in a recorded config that must not be run or resolved, at any depth.

        references: whether it may refer to its own keys, as in `${dataset.name}`. The targets behind them are checked
        when they are resolved.
        """
        problems = [*self._find_problems("", values, references), *_check_choices(choices or {})]
        if problems:
            raise ConfigError(problems)

    def _find_problems(self, key: str, value: Any, references: bool) -> Iterator[Problem]:
        if key.rpartition(".")[2] == "_target_":
            if not self._is_later(value, references) and not self.allows(value):
                yield Problem(key, RULE, value, f"if you trust it, add {self.option.format(value)}")
        elif isinstance(value, Mapping):
            for name, inner in value.items():
                yield from self._find_problems(f"{key}.{name}".lstrip("."), inner, references)
                if "${" in str(name):
                    yield Problem(f"{key}.{name}".lstrip("."), "must not be a key of a recorded config")
        elif isinstance(value, list | tuple):
            for place, inner in enumerate(value):
                yield from self._find_problems(f"{key}[{place}]", inner, references)
        elif isinstance(value, str) and "${" in (REFERENCE.sub("", value) if references else value):
            rule = "must be a plain value in a recorded config, because an interpolation could read this machine"
            yield Problem(key, rule, value, "give the value on the command line of a new run")

    def _is_later(self, target: Any, references: bool) -> bool:
        """Whether a target is still to be given or resolved."""
        return target == "???" or (references and isinstance(target, str) and bool(REFERENCE.fullmatch(target)))

    def allows(self, target: Any) -> bool:
        """Whether a recorded config may name this target. Imports no module outside the current folder and entries."""
        if not isinstance(target, str):
            return False
        if target in conf_targets() or target in self.entries or OF_KERAS.fullmatch(target):
            return True
        names = target.split(".")
        if any(not name.isidentifier() or name.startswith("__") for name in names):
            return False
        modules = (".".join(names[:n]) for n in range(1, len(names)))
        if not (self._in_prefix(target) or any(find_own_file(module, self.stores) for module in modules)):
            return False
        try:
            found = import_target(target)
        except ImportError:
            return False
        # A module hands on what it imports: my_net.os.system is not code of my_net.
        module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", "")
        if not isinstance(module, str):
            return False
        named = f"{module}.{name}"
        return named in self.entries or self._in_prefix(named) or is_own_module(module, self.stores)

    def _in_prefix(self, target: str) -> bool:
        return any(target.startswith(entry[:-1]) for entry in self.entries if entry.endswith(".*"))


def find_own_file(module: str, stores: Collection[Path] = ()) -> Path | None:
    """Returns the file of a module of the current folder's code, found without importing it; None if there is none.

    This code lies below the current folder, where Python looks for modules, but not in an environment of Python's and
    not in the folder of a store, to which others may have uploaded it. stores: more such folders.
    """
    *packages, name = module.split(".")
    here = Path.cwd().resolve()
    if [*packages, name][0] in OWN:
        return None
    for root in dict.fromkeys(Path(entry).resolve() for entry in ("", *sys.path)):
        folder = root.joinpath(*packages)
        if not root.is_relative_to(here) or "site-packages" in root.parts:
            continue
        below = [path for path in (folder / name, folder, *folder.parents) if here in path.parents]
        if any(path.name in STORES or (path / DATABASE).exists() or path.resolve() in stores for path in below):
            continue
        for file in (folder / f"{name}.py", folder / name / "__init__.py"):
            if file.is_file():
                return file
    return None


def is_own_module(module: str, stores: Collection[Path] = ()) -> bool:
    """Whether an imported module is the file that `find_own_file` finds."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if not loaded or Path.cwd() not in (*Path(loaded).absolute().parents, *Path(loaded).resolve().parents):
        return False  # at once, for the thousands of modules of the libraries
    file = find_own_file(module, stores)
    return file is not None and Path(loaded).resolve() == file.resolve()


@cache
def conf_targets() -> frozenset[str]:
    """Returns every target that conf/ names, and what stands for images that were given in Python."""
    return frozenset(
        ["mnist_exp.data.given"]
        + [name for path in CONF.rglob("*.yaml") for name in targets_of(OmegaConf.to_container(OmegaConf.load(path)))]
    )


def targets_of(node: Any) -> Iterator[str]:
    """Yields every `_target_` in a config, at any depth."""
    if isinstance(node, Mapping):
        if node.get("_target_", "???") != "???":
            yield str(node["_target_"])
        for inner in node.values():
            yield from targets_of(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from targets_of(inner)


def _check_choices(choices: Mapping[str, Any]) -> Iterator[Problem]:
    for group, choice in choices.items():
        if group not in GROUPS or not isinstance(choice, str) or not CHOICE.fullmatch(choice):
            yield Problem(str(group), "must be the name of a choice in a recorded config", choice)
