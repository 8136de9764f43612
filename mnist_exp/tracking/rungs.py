"""What the rungs of a sweep have seen and decided: metrics of its run, with the number of a trial as the step."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import read_metric_history

SCORE, GOES_ON = "rung/{}", "rung/{}/goes_on"  # 1: the trial went on, 0: it ended there


@dataclass(frozen=True)
class Rungs:
    """The rungs of the sweep with this id. Workers of the sweep read and write them while they train."""

    store: Store
    sweep: str

    def decide(self, rung: int | str, number: int, score: float, goes_on: Callable[[Collection[float]], bool]) -> bool:
        """Returns whether a trial goes on after this rung, which is an epoch or the end of a fold.

        goes_on: decides by the scores of the other trials that the rung has seen. It is asked once for each trial: one
        that is run again, because its worker was killed, gets the answer that was recorded. Raises TrackingError.
        """
        seen: dict[int, float] = {}
        for trial, value in read_metric_history(self.store, self.sweep, SCORE.format(rung)):
            seen.setdefault(trial, value)
        if number in seen:
            for trial, value in read_metric_history(self.store, self.sweep, GOES_ON.format(rung)):
                if trial == number:
                    return bool(value)
        decision = goes_on([value for trial, value in seen.items() if trial != number])
        self.store.log(self.sweep, {SCORE.format(rung): score, GOES_ON.format(rung): float(decision)}, number)
        return decision
