"""Every key of a config: type, limits and flags. Defaults and comments stand in conf/.

A section of a config holds the keys of its class here, and the arguments of its `_target_`. A default here is for
configs that were recorded before the key existed.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, create_model

from mnist_exp.config.targets import argument_type


class Flag(Enum):
    """Further properties of a key."""

    RESUME = "may be given when a run or a sweep is resumed"
    LABEL = "names a run or says where things are kept: not swept, hashed, compared or written to best.yaml"
    SECRET = "an address that may hold a password: recorded and printed without it, never put into a problem"
    PATH = "a file or folder: ~ is expanded"


@dataclass(frozen=True)
class Rule:
    """Our words for a union, which pydantic describes branch by branch."""

    text: str


Count = Annotated[int, Ge(1)]
Seed = Annotated[int, Ge(0), Lt(2**31)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]
UpToOne = Annotated[float, Ge(0), Le(1)]
FractionOrCount = Annotated[Annotated[float, Gt(0), Lt(1)] | Count, Rule("must be a fraction below 1 or a count")]
Name = Annotated[str, Len(1, 200)]
# A class, which Hydra and YAML read as a number if it looks like one. Not a bool, which may have been typed as `yes`.
ClassName = Annotated[str, BeforeValidator(lambda name: str(name) if type(name) is int else name)]
FilePath = Annotated[str, Flag.PATH]
OptionalPath = Annotated[str | None, Flag.PATH]

# As in the execution whitelist of Hydra 1.4: the name of a target, or a prefix.
Entry = Annotated[str, StringConstraints(pattern=r"^[^\W\d]\w*(\.\w+)*(\.\*)?$")]

# An object of Keras or of the user's own, see components.py.
Component = Annotated[dict[str, Any], Rule("must be {_target_: NAME, key: value}")]

Monitor = Literal["val_accuracy", "val_loss", "accuracy", "loss"]

# Random changes inside a net, in configs of version 0.1: shares of the side, of a full turn and of the size.
Augmentation = dict[Literal["translation", "rotation", "zoom"], Share]


class Section(BaseModel):
    """The settings of a section."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )


class General(Section):
    """The keys outside the sections."""

    seed: Seed
    name: Annotated[Name | None, Flag.LABEL]
    export: str | None
    augmentation: Annotated[
        Literal["none", "digits", "photos"] | list[Component],
        Rule("must be none, digits, photos or [{_target_: NAME, key: value}]"),
    ] = "none"


class Split(Section):
    """How a data set is split; conf/dataset/digits.yaml explains each key."""

    name: str
    validation: FractionOrCount
    method: Literal["tail", "stratified"]
    test: FractionOrCount
    limit: Count | None
    seed: Seed
    folds: Annotated[int | None, Ge(2)] = None


class Optimizer(Section):
    """The learning rate over a training, and what all optimizers share; conf/optimizer/adam.yaml explains each key."""

    learning_rate: Positive
    schedule: Annotated[
        Literal["constant", "cosine"] | Component, Rule("must be constant, cosine or {_target_: NAME, key: value}")
    ]
    warmup: Share
    clipnorm: Positive | None = None
    use_ema: bool = False
    ema_momentum: Share = 0.99


class Training(Section):
    """How to train; conf/training/default.yaml explains each key."""

    epochs: Annotated[Count, Flag.RESUME]
    batch_size: Count
    batches: Count | None
    loss: Annotated[
        Literal["sparse_categorical_crossentropy", "categorical_crossentropy"] | Component,
        Rule("must be sparse_categorical_crossentropy, categorical_crossentropy or {_target_: NAME, key: value}"),
    ]
    label_smoothing: Share
    targets: Literal["auto", "integers", "one_hot"] = "auto"
    metrics: list[Component] = []
    callbacks: list[Component] = []
    class_weight: Annotated[
        Literal["balanced"] | dict[ClassName, Positive] | None, Rule("must be null, balanced or {class name: weight}")
    ] = None
    timeout: Annotated[Positive | None, Flag.RESUME] = None
    start_from: str | None = None
    freeze: list[str] | None = None
    weights: Literal["last", "best"]
    checkpoint_monitor: Monitor
    early_stopping_monitor: Monitor
    early_stopping_patience: Count | None
    reduce_lr_monitor: Monitor
    reduce_lr_patience: Count | None
    reduce_lr_factor: Share
    compiled_epoch: Literal["auto", "on", "off"]
    precision: Literal["float32", "mixed_bfloat16"]
    deterministic: bool
    program_cache: Annotated[bool, Flag.RESUME, Flag.LABEL] = True
    feature_cache: Annotated[bool, Flag.RESUME, Flag.LABEL] = True
    resume: Annotated[str | None, Flag.RESUME, Flag.LABEL]

    def images_used(self, available: int) -> int:
        """Returns how many of the available training images an epoch takes."""
        return available if self.batches is None else min(available, self.batches * self.batch_size)

    def steps(self, available: int) -> int:
        """Returns the batches of the whole training, the short last ones included."""
        return self.epochs * math.ceil(self.images_used(available) / self.batch_size)


class Tracking(Section):
    """Where runs are recorded; conf/tracking/mlflow.yaml explains each key."""

    enabled: bool = True
    uri: Annotated[str | None, Flag.SECRET] = None
    experiment: Name = "mnist_exp"
    folder: Annotated[str, Len(1), Flag.PATH] = "mlruns"
    system_metrics: bool = False
    execution_whitelist: Annotated[
        list[Entry], Rule("must be a list of targets, such as my_nets.wide, or of prefixes, such as my_nets.*")
    ] = []


# A metric that a run logs.
Metric = Annotated[
    str, StringConstraints(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$"), Rule("must be a metric, such as val/accuracy")
]
OF_THE_NET = ("parameters", "size", "memory")  # known before its training; the last two in MB


class Limits(Section):
    """The least and the largest value that a trial may have."""

    min: float | None = None
    max: float | None = None


class Sweep(Section):
    """How to search; conf/sweep/default.yaml explains each key."""

    name: Name | None
    objective: Metric
    direction: Literal["max", "min"]
    sampler: Literal["auto", "grid", "random", "tpe"] = "auto"
    pruner: Literal["auto", "off", "median", "asha", "hyperband"] = "off"
    algorithm: Literal["auto", "grid", "random", "tpe", "hyperband"] | None = None
    pruning: Literal["median", "off"] | None = None
    max_trials: Annotated[Count | None, Flag.RESUME]
    max_epochs: Annotated[Count | None, Flag.RESUME] = None
    executions: Count
    pruning_epochs: Count
    pruning_trials: Count
    factor: Annotated[int, Ge(2)] | None
    first_rung: Count = 1
    iterations: Count
    constraints: Annotated[
        Mapping[Metric, Limits] | None,
        Rule("must hold limits by metric, such as {parameters: {max: 50000}, val/calibration_error: {max: 0.02}}"),
    ] = None
    first: Annotated[list[str], Rule("must be a list of defaults, best, runs, sweeps and YAML files")] = []
    reuse: bool = False
    confirm: Annotated[Annotated[int, Ge(2)] | None, Rule("must be null or at least 2"), Flag.RESUME] = None
    confirm_seeds: Annotated[int, Ge(2), Flag.RESUME] = 5
    patience: Annotated[Count | None, Flag.RESUME] = None
    max_consecutive_failures: Count
    trial_timeout: Annotated[Positive | None, Flag.RESUME]
    timeout: Annotated[Positive | None, Flag.RESUME]
    seed: Seed
    resume: Annotated[str | None, Flag.RESUME]
    take_over: Annotated[bool, Flag.RESUME] = False
    plan: bool
    save_best: Annotated[str | None, Flag.RESUME, Flag.PATH]
    space: Mapping[str, Any]

    @property
    def hyperband(self) -> bool:
        """Whether trials are stopped and promoted by Hyperband."""
        return "hyperband" in (self.pruner, self.algorithm)

    @property
    def median(self) -> bool:
        """Whether trials below the median of their finished siblings end early."""
        return "median" in (self.pruner, self.pruning)

    @property
    def asha(self) -> bool:
        """Whether trials that are not among the best at a rung end there."""
        return self.pruner == "asha"


class Executor(Section):
    """Where trials run; conf/executor/ explains each key of each kind."""

    kind: Literal["inline", "local", "dask", "slurm"]
    workers: Count | None


class ClusterExecutor(Executor):
    """What workers on other machines need."""

    gpus: Annotated[int, Ge(0)] = 0
    dataset_path: OptionalPath = None


class DaskExecutor(ClusterExecutor):
    """The workers of a Dask scheduler."""

    address: Annotated[str, Flag.SECRET]
    tls_ca: OptionalPath = None
    tls_cert: OptionalPath = None
    tls_key: OptionalPath = None


class SlurmExecutor(ClusterExecutor):
    """Jobs of a Slurm cluster, one worker each."""

    partition: str | None = None
    cpus: Count = 1
    memory: str = "4GB"
    walltime: str = "24:00:00"
    interface: str | None = None


@dataclass(frozen=True)
class Layout:
    """What a section consists of.

    settings: the class of its keys. kinds: the class by the value of the key `kind`. passed: arguments of its
    `_target_` that the program gives, not the config. flags: those of all its keys. sweep_only: of no use to a run.
    """

    settings: type[Section] = Section
    kinds: Mapping[str, type[Section]] = field(default_factory=dict)
    passed: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    sweep_only: bool = False


SECTIONS: Mapping[str, Layout] = {
    "": Layout(General),
    "dataset": Layout(Split),
    "model": Layout(passed=("image_shape", "classes")),
    "optimizer": Layout(Optimizer, passed=("rate",)),
    "training": Layout(Training),
    "tracking": Layout(Tracking, flags=(Flag.RESUME, Flag.LABEL)),
    "sweep": Layout(Sweep, sweep_only=True),
    "executor": Layout(
        Executor, kinds={"dask": DaskExecutor, "slurm": SlurmExecutor}, flags=(Flag.RESUME,), sweep_only=True
    ),
}
SWEEP_SECTIONS = tuple(name for name, layout in SECTIONS.items() if layout.sweep_only)


@lru_cache(maxsize=256)
def section_model(name: str, target: Callable[..., Any] | None = None, kind: str | None = None) -> type[Section]:
    """Returns the settings of a section and the arguments of its `_target_` as one pydantic model."""
    layout = SECTIONS[name]
    settings = layout.kinds.get(kind or "", layout.settings)
    if target is None:
        return settings
    arguments = [a for a in inspect.signature(target).parameters.values() if a.name not in layout.passed]
    shared = settings.model_fields  # what the program gives itself, such as the learning rate
    named = [a for a in arguments if a.kind in (a.KEYWORD_ONLY, a.POSITIONAL_OR_KEYWORD) and a.name not in shared]
    fields: Any = {a.name: (argument_type(target, a), ... if a.default is a.empty else a.default) for a in named}
    extra: Any = {"extra": "allow"} if any(a.kind is a.VAR_KEYWORD for a in arguments) else {}
    return create_model(name or "general", __base__=settings, __cls_kwargs__=extra, **fields)


@lru_cache
def later_keys() -> Mapping[str, Any]:
    """The keys of a run that configs of an earlier version lack, with the values that stand for their absence."""
    return {
        f"{section}.{key}".lstrip("."): info.default
        for section in ("", "dataset", "optimizer", "training")
        for key, info in SECTIONS[section].settings.model_fields.items()
        if not info.is_required()
    }


def keys_with(flag: Flag, *sections: str) -> list[str]:
    """Returns the keys of these sections, else of all, that carry a flag. Keys of a `_target_` carry none."""
    return [
        f"{section}.{key}".lstrip(".")
        for section in sections or SECTIONS
        for key, info in section_model(section).model_fields.items()
        if flag in (*info.metadata, *SECTIONS[section].flags)
    ]
