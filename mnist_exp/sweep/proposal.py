"""What an oracle proposes and is told."""

from dataclasses import dataclass
from typing import Literal

from mnist_exp.sweep.space import Values

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
