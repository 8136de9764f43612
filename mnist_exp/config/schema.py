"""The kinds of values a config may hold, as annotations that `checks` enforces and a reader understands."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len, Lt

Count = Annotated[int, Ge(1)]
Seed = Annotated[int, Ge(0), Lt(2**31)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]
UpToOne = Annotated[float, Ge(0), Le(1)]
FractionOrCount = Annotated[float, Gt(0), Lt(1)] | Count  # a fraction of the whole, or a count

Schedule = Literal["constant", "cosine"]
Monitor = Literal["val_accuracy", "val_loss", "accuracy", "loss"]

# Random changes of a training image: shares of its side, of a full turn and of its size; 0 switches one off.
Augmentation = dict[Literal["translation", "rotation", "zoom"], Share]


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs are recorded; conf/tracking/mlflow.yaml explains each key."""

    enabled: bool
    uri: str | None
    experiment: Annotated[str, Len(1, 200)]
    folder: Annotated[str, Len(1)]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train; conf/training/default.yaml explains each key."""

    epochs: Count
    batch_size: Count
    batches: Count | None
    loss: Literal["sparse_categorical_crossentropy", "categorical_crossentropy"]
    label_smoothing: Share
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
    resume: str | None

    def images_used(self, available: int) -> int:
        """How many of the available training images an epoch takes."""
        return available if self.batches is None else min(available, self.batches * self.batch_size)

    def steps(self, available: int) -> int:
        """Batches of the whole training, the short last ones included."""
        return self.epochs * math.ceil(self.images_used(available) / self.batch_size)


# What a run logs of its validation images; the test set is not for choosing.
Objective = Literal[
    "val/accuracy", "val/loss", "val/macro_f1", "val/macro_precision", "val/macro_recall", "val/calibration_error"
]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """How to search; conf/sweep/default.yaml explains each key."""

    name: Annotated[str, Len(1, 200)] | None
    objective: Objective
    direction: Literal["max", "min"]
    algorithm: Literal["auto", "grid", "random", "tpe", "hyperband"]
    max_trials: Count | None
    executions: Count
    pruning: Literal["median", "off"]
    pruning_epochs: Count
    pruning_trials: Count
    factor: Annotated[int, Ge(2)]
    iterations: Count
    max_consecutive_failures: Count
    trial_timeout: Positive | None
    timeout: Positive | None
    seed: Seed
    resume: str | None
    plan: bool
    save_best: str | None
    space: Mapping[str, Any]

    @property
    def sign(self) -> int:
        """What a score is multiplied by, so that more is better."""
        return 1 if self.direction == "max" else -1


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Where trials run; conf/executor/ explains each key."""

    kind: Literal["inline", "local", "dask", "slurm"]
    workers: Count | None
    address: str | None = None
    gpus: Annotated[int, Ge(0)] = 0
    dataset_path: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    partition: str | None = None
    cpus: Count = 1
    memory: str = "4GB"
    walltime: str = "24:00:00"
    interface: str | None = None
