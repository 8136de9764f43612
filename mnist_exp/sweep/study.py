"""A sweep from its command line to its report: what `-m` does."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter

from mnist_exp.config import check as checks
from mnist_exp.config.compose import by_key
from mnist_exp.config.schema import Sweep
from mnist_exp.data.load import digest_of
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.space import Space
from mnist_exp.sweep.syntax import parsed
from mnist_exp.sweep.trial_configs import Configs

if TYPE_CHECKING:
    from mnist_exp.tracking.sweep_run import SweepRun

CHANGEABLE = ("sweep.max_trials", "sweep.timeout", "sweep.trial_timeout", "sweep.resume", "sweep.save_best")
SPACE: TypeAdapter[Space] = TypeAdapter(Space)


@dataclass(frozen=True)
class Study:
    """A sweep, checked whole: what it searches, how, and the configs of its trials."""

    name: str
    settings: Sweep
    algorithm: str
    configs: Configs
    overrides: tuple[str, ...]
    digest: str

    @property
    def space(self) -> Space:
        """The parameters, typed."""
        return self.configs.space

    def frozen(self) -> dict[str, Any]:
        """All of it as plain values, for the record."""
        return {
            "name": self.name,
            "overrides": list(self.overrides),
            "settings": {**asdict(self.settings), "space": {}},
            "algorithm": self.algorithm,
            "space": SPACE.dump_python(self.space, mode="json"),
            "configs": self.configs.frozen(),
            "digest": self.digest,
        }

    @classmethod
    def thawed(cls, frozen: Mapping[str, Any]) -> "Study":
        """From the record."""
        space = SPACE.validate_python(frozen["space"])
        return cls(
            frozen["name"],
            Sweep(**frozen["settings"]),
            frozen["algorithm"],
            Configs.thawed(space, frozen["configs"]),
            tuple(frozen["overrides"]),
            frozen["digest"],
        )


def define(cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str]) -> Study:
    """The study that a command line and its `sweeps=` file describe. Raises ConfigError with every fault."""
    check(cfg)
    settings = Sweep(**OmegaConf.to_container(cfg.sweep, resolve=True))  # type: ignore[arg-type]
    file = f"sweeps/{choices['sweeps']}.yaml" if "sweeps" in choices else "sweep.space"
    ours = [override for override in overrides if not override.startswith(("hydra.", "hydra/"))]
    space, problems = parsed(settings.space, file, ours, choices)
    if not space.parameters and not problems:
        raise ConfigError(
            "a sweep needs something to choose; give several values, such as optimizer=adam,adadelta, or sweeps=mlp"
        )
    try:
        configs = Configs.composed(space, ours)
    except ConfigError as error:
        raise ConfigError("\n".join([*problems, str(error)])) from error
    if problems:
        raise ConfigError("\n".join(problems))
    algorithm = settings.algorithm
    if algorithm == "auto":
        algorithm = "grid" if configs.space.finite and settings.max_trials is None else "tpe"
    if algorithm == "grid":
        next(configs.space.combinations())  # raises for an interval
    _check_end(algorithm, settings, configs.space)
    name = settings.name or choices.get("sweeps") or "sweep"
    return Study(name, settings, algorithm, configs, tuple(overrides), digest_of(configs.first()))


def check(cfg: DictConfig) -> None:
    """Raises ConfigError where sweep, executor or tracking cannot be used."""
    found = [line for line in checks.problems(cfg) if re.match(r"(there is no key )?(sweep|executor|tracking)\b", line)]
    if not cfg.tracking.enabled:
        found.append("a sweep needs the tracking store, its only record, but got tracking=off; leave that out")
    if found:
        raise ConfigError("\n".join(found))


def _check_end(algorithm: str, settings: Sweep, space: Space) -> None:
    if algorithm in ("random", "tpe") and settings.max_trials is None and not space.finite:
        raise ConfigError(
            f"sweep.algorithm={algorithm} over intervals has no end of its own; give sweep.max_trials=50, for example"
        )


def resumed(record: "SweepRun", cfg: DictConfig, overrides: Sequence[str]) -> Study:
    """The recorded study, with what may change. Raises ConfigError for an override that says something else."""
    study = Study.thawed(record.record)
    given, before = by_key(overrides), by_key(study.overrides)
    free = {key for key in given if key in CHANGEABLE or key.startswith(("executor", "tracking"))}
    if differing := [given[key] for key in given.keys() - free if before.get(key) != given[key]]:
        raise ConfigError(
            f"a resumed sweep keeps what it began with, {' '.join(study.overrides)}; beside sweep.resume it takes "
            f"only {', '.join(CHANGEABLE[:3])} and executor.*, but got {' '.join(sorted(differing))}"
        )
    names = [key.removeprefix("sweep.") for key in free if key in CHANGEABLE and key != "sweep.resume"]
    changed = {name: cfg.sweep[name] for name in names}
    settings = replace(study.settings, **changed)
    _check_end(study.algorithm, settings, study.space)
    digest = digest_of(study.configs.first())
    if digest != study.digest:
        raise ConfigError(
            f"a resumed sweep needs the data it began with, digest {study.digest}, but got {digest}; "
            "put that data back, or start a new sweep"
        )
    return replace(study, settings=settings)


def config_hash(config: Mapping[str, Any]) -> str:
    """Of what a trial is trained with, wherever it is recorded."""
    kept = {key: value for key, value in config.items() if key not in ("tracking", "name")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]
