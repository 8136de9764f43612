"""The keys of `sweep` and `executor`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Len

from mnist_exp.types import Count, Positive, Seed

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
