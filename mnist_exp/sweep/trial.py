"""A trial as data: what is proposed, sent to a worker and returned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mnist_exp.sweep.space import Values


@dataclass(frozen=True, kw_only=True)
class Job:
    """A trial as plain values, which is all that travels to a worker.

    run_id: that of its run, which exists already; digest: of the data set, as the sweep began with it; medians: of the
    finished siblings' objective, epoch by epoch, below which it is pruned; continues: the run whose checkpoint it goes
    on from; keeps_checkpoint: whether another may go on from its own; seconds: how long it may take.
    """

    number: int
    run_id: str
    name: str
    config: dict[str, Any]
    choices: dict[str, str]
    executions: int
    objective: str
    direction: Literal["max", "min"]
    digest: str | None
    medians: tuple[float, ...] = ()
    pruning_epochs: int = 0
    continues: str | None = None
    keeps_checkpoint: bool = False
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial came to: a score, or the error it ended with. curve: the objective epoch by epoch."""

    score: float | None = None
    spread: float | None = None
    pruned: bool = False
    curve: tuple[float, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


WAIT: Literal["wait"] = "wait"  # for a running trial to end: what comes next depends on it


@dataclass(frozen=True)
class Rung:
    """Where a trial of Hyperband stands.

    epochs: those to reach in all; parent: the trial that was promoted, whose checkpoint it continues.
    """

    bracket: int
    number: int
    epochs: int
    parent: int | None


@dataclass(frozen=True)
class Proposal:
    """The values of the trial of this number; rung: its place in Hyperband."""

    number: int
    values: Values
    rung: Rung | None = None


@dataclass(frozen=True)
class Past:
    """A recorded trial; score: None where it failed, or is to be run again (`ended` is False then)."""

    proposal: Proposal
    ended: bool
    score: float | None = None
