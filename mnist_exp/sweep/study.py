"""A study: what a sweep searches, how, and the configs of its trials."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mnist_exp.config.check import AT_THE_END, find_problems
from mnist_exp.config.compose import Composed, by_key
from mnist_exp.config.objective import Objective
from mnist_exp.config.recorded import ExecutionWhitelist
from mnist_exp.config.resume import OF_SWEEPS, check_overrides
from mnist_exp.config.run_config import BaseConfig, RunConfig, plain
from mnist_exp.config.schema import OF_THE_NET, Split, Sweep
from mnist_exp.data.load import load_splits
from mnist_exp.errors import ConfigError, Problem, TrackingError, nearest
from mnist_exp.secrets import hide
from mnist_exp.sweep.auto import choose_algorithm, choose_pruner
from mnist_exp.sweep.constraints import Constraint, read_constraints
from mnist_exp.sweep.space import Space
from mnist_exp.sweep.stored_values import (
    FORMAT,
    OUTSIDE,
    SPACE,
    StoredValues,
    judge,
    read_stored_groups,
    read_stored_space,
)
from mnist_exp.sweep.syntax import read_space
from mnist_exp.sweep.trial import Queued
from mnist_exp.sweep.trial_configs import TrialConfigs
from mnist_exp.tracking.stored_run import TrialRun
from mnist_exp.tracking.sweep_run import SweepRun

# The version of the metrics that trials are scored by. Of a sweep that an older version began it is 1: there `val/loss`
# is the cross-entropy of clipped probabilities, and absent classes count as 0 in macro averages.
DEFINITIONS = 2
KNOWN = (
    *(f"{split}/{name}" for split in ("val", "train") for name in ("accuracy", "loss", "cross_entropy")),
    *(f"val/{name}" for name in AT_THE_END),
)


@dataclass(frozen=True)
class Study:
    """A checked study.

    algorithm: grid, random, tpe or hyperband. digest: of the data set. stored: the format of values in the store.
    definitions: the version of the metrics that trials are scored by, which is that of the sweep's beginning. why: the
    reason for the pruner, if the command line left it to us. queue: the values of the trials that somebody has chosen.
    widened: whether the space was another one when the sweep began.
    """

    name: str
    settings: Sweep
    algorithm: str
    configs: TrialConfigs
    overrides: tuple[str, ...]
    digest: str
    stored: StoredValues = field(default_factory=StoredValues)
    definitions: int = DEFINITIONS
    why: str = ""
    queue: tuple[Queued, ...] = ()
    widened: bool = False

    @property
    def objective(self) -> Objective:
        """What the sweep optimizes."""
        return Objective(self.settings.objective, self.settings.direction)

    @property
    def epochs(self) -> int:
        """The epochs of the longest training."""
        return max(int(base.config.training.epochs) for base in self.configs.bases.values())

    @property
    def folds(self) -> int:
        """The trainings of a trial: one for each fold of the data."""
        return int(self.configs.first().settings(Split).folds or 1)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What a trial must meet to win."""
        return read_constraints(self.settings.constraints or {})

    @property
    def space(self) -> Space:
        """The parameters, typed."""
        return self.configs.space

    def to_record(self) -> dict[str, Any]:
        """Returns the whole study as plain values, for `sweep.json`."""
        return {
            "format": FORMAT,
            "name": self.name,
            "overrides": list(map(hide, self.overrides)),
            "settings": {**self.settings.model_dump(), "space": {}},
            "algorithm": self.algorithm,
            **self.space_record(),
            "queue": [asdict(queued) for queued in self.queue],
            "digest": self.digest,
            "definitions": self.definitions,
        }

    def space_record(self) -> dict[str, Any]:
        """Returns the part of the record that a request may change: the space, and the configs of its groups."""
        return {
            "space": SPACE.dump_python(self.space, mode="json"),
            "configs": {key: base.to_record() for key, base in self.configs.bases.items()},
            "widened": self.widened,
        }

    def trials(self, record: SweepRun) -> list[TrialRun]:
        """Returns the trials of the sweep in the store, by number; those outside of a widened space are excluded.

        Raises TrackingError for values that the sweep cannot have chosen.
        """
        trials = judge(record.trials(), self.space, self.stored)
        foreign = next((trial for trial in trials if trial.excluded == OUTSIDE), None)
        if foreign and not self.widened:
            rule = "must have values of the sweep's space"
            raise TrackingError(Problem(f"trial {foreign.number}", rule, foreign.values, "start a new sweep"))
        return trials

    @classmethod
    def from_record(cls, record: Mapping[str, Any], whitelist: ExecutionWhitelist) -> "Study":
        """Restores a study from its record. Raises ConfigError for what the whitelist does not allow."""
        space, stored = read_stored_space(record)
        stored_bases = record["configs"].items()
        bases = {read_stored_groups(record, key): BaseConfig.from_record(base, whitelist) for key, base in stored_bases}
        return cls(
            " ".join(record["name"].split()),  # one line: it becomes a comment of best.yaml
            Sweep(**record["settings"]),
            record["algorithm"],
            TrialConfigs(space, bases),
            tuple(record["overrides"]),
            record["digest"],
            stored,
            record.get("definitions", 1),
            queue=tuple(Queued(**queued) for queued in record.get("queue", ())),
            widened=record.get("widened", False),
        )


def check_settings(composed: Composed) -> RunConfig:
    """Returns the sections of a sweep: sweep, executor and tracking. Raises ConfigError with all their problems."""
    values = {section: plain(composed.config[section]) for section in OF_SWEEPS}
    problems = list(find_problems(values, OF_SWEEPS))
    if not values["tracking"].get("enabled"):
        rule = "needs the tracking store, which is its only record"
        problems.append(Problem("a sweep", rule, "tracking=off", "leave tracking=off out"))
    if problems:
        raise ConfigError(problems)
    return RunConfig(values, composed.choices)


def define_study(composed: Composed) -> Study:
    """Returns the study of a command line and its `sweeps=` file. Raises ConfigError with every problem."""
    settings = check_settings(composed).settings(Sweep)
    study_name = composed.choices.get("sweeps")
    file = f"sweeps/{study_name}.yaml" if study_name else "sweep.space"
    ours = [override for override in composed.overrides if not override.startswith(("hydra.", "hydra/"))]
    space, problems = read_space(settings.space, file, ours, composed.choices, composed.source)
    if not space.parameters and not problems:
        remedy = "give several values, such as optimizer=adam,adadelta, or sweeps=mlp"
        raise ConfigError(Problem("a sweep", "needs something to choose", remedy=remedy))
    try:
        configs = TrialConfigs.compose(space, ours, composed.source)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from error
    if problems:
        raise ConfigError(problems)
    _check_objective(settings, configs)
    algorithm = choose_algorithm(settings, configs.space)
    if algorithm == "grid":
        next(configs.space.combinations())  # raises for an interval
    _check_end(algorithm, settings, configs.space)
    name, digest = settings.name or study_name or "sweep", load_splits(configs.first()).digest
    study = Study(name, settings, algorithm, configs, composed.overrides, digest)
    pruner, why = choose_pruner(settings, algorithm, study.epochs)
    return replace(study, settings=settings.model_copy(update={"pruner": pruner}), why=why)


def resume_study(record: SweepRun, composed: Composed) -> tuple[Study, dict[str, Any]]:
    """Returns the recorded study with the changes that a resumed sweep allows, and these changes for the store.

    Raises ConfigError for other changes.
    """
    study = Study.from_record(record.record, record.store.whitelist)
    free = check_overrides(composed.overrides, OF_SWEEPS, "a resumed sweep", study.overrides)
    now = check_settings(composed).settings(Sweep)
    given = by_key(composed.overrides)
    # A key that is repeated as it was typed last changes nothing, so that what people have asked for since is kept.
    typed = by_key([*study.overrides, *(text for change in record.changes for text in change["overrides"])])
    own = sorted(key for key in free if key.startswith("sweep.") and given[key] != typed.get(key))
    own = [key for key in own if key not in ("sweep.resume", "sweep.take_over")]
    changed = {name: getattr(now, name) for name in (key.removeprefix("sweep.") for key in own)}
    settings = study.settings.model_copy(update=changed)
    if "save_best" not in changed:
        _check_recorded_path(settings.save_best)
    _check_end(study.algorithm, settings, study.space)
    digest = load_splits(study.configs.first()).digest
    if digest != study.digest:
        rule = f"must have the digest {study.digest}, as when the sweep began"
        raise ConfigError(Problem("the data set", rule, digest, "restore that data, or start a new sweep"))
    return replace(study, settings=settings), {"overrides": [given[key] for key in own], "settings": changed}


def _check_recorded_path(path: str | None) -> None:
    """Raises ConfigError for a recorded path that the sweep must not write to: its record may be another's."""
    if path and (Path(path).suffix not in (".yaml", ".yml") or Path(path).is_absolute() or ".." in Path(path).parts):
        rule = "must be a YAML file below the current folder, because it is read from a store"
        raise ConfigError(Problem("sweep.save_best", rule, path, "give sweep.save_best=PATH again, or null"))


def _is_logged(metric: str, configs: TrialConfigs) -> bool:
    """Whether trials may log a metric: one of ours, or, as far as can be known, of the user's own."""
    own = any(base.find(f"training.{key}")[1] for base in configs.bases.values() for key in ("metrics", "callbacks"))
    return own or metric in (*KNOWN, *OF_THE_NET) or metric.startswith("wall_seconds/")


def _check_end(algorithm: str, settings: Sweep, space: Space) -> None:
    limited = settings.max_trials is not None or settings.max_epochs is not None
    if algorithm in ("random", "tpe") and not limited and not space.finite:
        rule = f"must be given for sweep.sampler={algorithm} over intervals, which has no end of its own"
        raise ConfigError(Problem("sweep.max_trials", rule, None, "give sweep.max_trials=50, or sweep.max_epochs=500"))


def _check_objective(settings: Sweep, configs: TrialConfigs) -> None:
    """Raises ConfigError for a metric that no trial logs, and for losses of different definitions."""
    for place, name in [
        ("objective", settings.objective),
        *(("constraints", one) for one in settings.constraints or ()),
    ]:
        if not _is_logged(name, configs):
            known = [*KNOWN, *(OF_THE_NET if place == "constraints" else ())]
            rule = "must be a metric that a run logs; without training.metrics and training.callbacks these are "
            raise ConfigError(Problem(f"sweep.{place}", rule + ", ".join(known), name, nearest(name, known)))
    key = "training.label_smoothing"
    differ = len({base.find(key)[1] for base in configs.bases.values()}) > 1
    if settings.objective == "val/loss" and (differ or any(p.key == key for p in configs.space.parameters)):
        rule = f"must be the same loss in all trials, but they differ in {key}, which val/loss includes"
        remedy = "give sweep.objective=val/cross_entropy, which leaves smoothing out"
        raise ConfigError(Problem("sweep.objective", rule, remedy=remedy))
