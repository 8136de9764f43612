"""A trial as data: what is proposed, sent to a worker and returned."""

from dataclasses import dataclass, field
from typing import Literal

from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import RunConfig
from mnist_exp.sweep.constraints import Constraint
from mnist_exp.sweep.space import Values

WAIT: Literal["wait"] = "wait"  # for a running trial to end, because the next proposal depends on it


@dataclass(frozen=True)
class Rung:
    """The place of a trial in Hyperband.

    epochs: the total to reach. parent: the trial that was promoted, whose checkpoint this one continues.
    """

    bracket: int
    number: int
    epochs: int
    parent: int | None


@dataclass(frozen=True)
class Proposal:
    """The values of the trial of this number.

    rung: its place in Hyperband. source: who has chosen the values, such as `first/1`; empty: the sampler.
    """

    number: int
    values: Values
    rung: Rung | None = None
    source: str = ""


@dataclass(frozen=True)
class Queued:
    """Values that a trial gets before the sampler chooses any. source: `first/1` or `request/1`, and so on."""

    source: str
    values: Values


@dataclass(frozen=True, kw_only=True)
class Job:
    """A trial as plain values: all that is sent to a worker.

    run_id: its run, which exists already. digest: of the data set that the sweep began with. definitions: the version
    of the metrics that the sweep scores by. medians: of the finished trials' objective, epoch by epoch; a trial below
    them is pruned. rungs: the epochs after which it is pruned unless it is among the best 1/factor of what the rung has
    seen; sweep: the id of the sweep's run, which knows that. continues: the run whose checkpoint it continues.
    keeps_checkpoint: whether another trial may continue its own. seconds: how long it may take. address: of the store,
    with its credentials, which the config does not hold; it is not part of the text that Dask writes to its logs.
    own_code: the digest of the user's code when this process of the sweep began; None if there is none.
    constraints: what the trial must meet, see `sweep.constraints`.
    """

    number: int
    run_id: str
    name: str
    config: RunConfig
    executions: int
    objective: Objective
    digest: str | None
    definitions: int
    address: str = field(repr=False)
    medians: tuple[float, ...] = ()
    pruning_epochs: int = 0
    sweep: str = ""
    rungs: tuple[int, ...] = ()
    factor: int = 0
    continues: str | None = None
    keeps_checkpoint: bool = False
    seconds: float | None = None
    own_code: str | None = None
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a trial failed. kind: the class of the exception. place: file:line, or the keys of a UserError's problems;
    empty if it is not known.
    """

    kind: str
    place: str
    message: str

    def is_like(self, other: "Failure") -> bool:
        """Whether both have the same cause. The message does not count, since it may hold the values of the trial."""
        return (self.kind, self.place) == (other.kind, other.place)

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" + (f" ({self.place})" if self.place not in self.message else "")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a trial: a score or a failure.

    curve: the objective epoch by epoch. epochs: those that were trained, of all seeds together. undelivered: the
    folders of its runs of which the store has not taken all. diverged: whether a training of the trial ended much worse
    than guessing. It has a score as any other, so that the sampler learns from it. violates: the constraint that the
    trial does not meet; without a score it was not trained.
    """

    score: float | None = None
    spread: float | None = None
    pruned: bool = False
    diverged: bool = False
    curve: tuple[float, ...] = ()
    epochs: int = 0
    failure: Failure | None = None
    violates: str = ""
    undelivered: tuple[str, ...] = ()
