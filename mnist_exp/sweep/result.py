"""What a sweep has found, for Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.sweep.engine import StopReason
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.winner import Winner
from mnist_exp.tracking.stored_run import TrialRun
from mnist_exp.tracking.sweep_run import SweepRun

if TYPE_CHECKING:
    import pandas as pd

REPORT = "report.html"


@dataclass(frozen=True)
class SweepResult:
    """A sweep that has run.

    runs: one of each trial, by number. winner: None if the sweep was stopped, or no trial is complete. stop_reason: why
    no more trials started. problem: why the sweep failed; empty if it did not. undelivered: the trials of which the
    store lacks something.
    """

    record: SweepRun
    study: Study
    runs: Sequence[TrialRun]
    winner: Winner | None
    stop_reason: StopReason
    problem: str = ""
    undelivered: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The name of the sweep."""
        return self.record.name

    @property
    def id(self) -> str:
        """The id of its run in the store."""
        return self.record.id

    @property
    def best(self) -> TrialRun | None:
        """The winner: number, values, score, metrics, run_id."""
        return self.winner.trial if self.winner else None

    @property
    def test(self) -> Mapping[str, float]:
        """The metrics of the winner on the test set, such as test/accuracy; empty without a winner."""
        return self.winner.test if self.winner else {}

    @property
    def trials(self) -> "pd.DataFrame":
        """One row per trial: number, outcome, score, epochs, seconds, run_id, and a column per parameter."""
        import pandas as pd

        keys = dict.fromkeys(parameter.key for parameter in self.study.space.parameters)
        rows = [
            {
                "trial": trial.number,
                "outcome": trial.outcome,
                "score": trial.score,
                "spread": trial.spread,
                "excluded": trial.excluded,
                "epochs": trial.epochs,
                "seconds": trial.seconds,
                "run_id": trial.run_id,
                **dict.fromkeys(keys),
                **self.study.space.assigned(trial.values),
            }
            for trial in self.runs
        ]
        return pd.DataFrame(rows)

    @property
    def report(self) -> Path:
        """The report, one HTML file; that of a store on a server is fetched. Raises TrackingError if it cannot be."""
        return self.record.fetch_file(REPORT)

    def __repr__(self) -> str:
        best = f"trial {self.best.number} with {self.best.score:.4f}" if self.best else "none"
        return f"SweepResult({self.name!r}, {len(self.runs)} trials, best: {best})"
