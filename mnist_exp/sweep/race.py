"""The race between the best trials of a sweep with sweep.confirm: which of them may win, by the means of new seeds.

The best of many scores is too good by chance. New seeds were not chosen, so their means are not. A candidate that is
clearly worse than the leader gets no more seeds, and the race ends when one is left.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mnist_exp.config.objective import Objective
from mnist_exp.tracking.stored_run import TrialRun
from mnist_exp.tracking.sweep_run import Confirmation

LEAST = 3  # new seeds of each before one can be out
LEVEL = 0.975  # of the one-sided t interval of the differences, seed by seed

Scores = Mapping[int, Mapping[int, float | None]]  # by trial and new seed, counted from 0; None: it failed


@dataclass(frozen=True)
class Race:
    """What is known of the candidates. left: those that may win, best first. open: the trials and seeds to train next.

    With nothing open the race is over.
    """

    left: tuple[int, ...]
    open: tuple[tuple[int, int], ...] = ()


def race(candidates: Sequence[int], scores: Scores, most: int, objective: Objective) -> Race:
    """Returns how a race stands. candidates: trials, best first. most: the new seeds of each."""
    left = list(candidates)
    for seed in range(most):
        if missing := [(trial, seed) for trial in left if seed not in scores.get(trial, {})]:
            return Race(tuple(left), tuple(missing) if len(left) > 1 or seed < LEAST else ())
        left = [trial for trial in left if scores[trial][seed] is not None] or left[:1]
        known = {trial: {one: score for one, score in scores[trial].items() if one <= seed} for trial in left}
        means = {trial: _mean(known[trial]) for trial in left}
        left.sort(key=lambda trial: objective.rank(means[trial]))
        if seed + 1 >= LEAST:
            best, *others = left
            left = [best, *(one for one in others if not _is_worse(known[one], known[best], objective))]
            if len(left) == 1:
                break
    return Race(tuple(left))


def _mean(scores: Mapping[int, float | None]) -> float:
    return statistics.fmean([score for score in scores.values() if score is not None] or [math.nan])


def _is_worse(scores: Mapping[int, float | None], leader: Mapping[int, float | None], objective: Objective) -> bool:
    """Whether the differences, seed by seed, show that these scores are worse than the leader's."""
    from scipy.stats import t

    sign = 1 if objective.direction == "max" else -1
    pairs = [(leader[seed], score) for seed, score in scores.items()]
    differences = [sign * (a - b) for a, b in pairs if a is not None and b is not None]
    if len(differences) < LEAST:
        return False
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.fmean(differences) > float(t.ppf(LEVEL, len(differences) - 1)) * error


@dataclass(frozen=True)
class Confirmed:
    """A candidate. scores: of its new seeds. rank: by their means, from 1; None if it was out before the end."""

    trial: TrialRun
    scores: tuple[float, ...]
    rank: int | None

    @property
    def mean(self) -> float:
        """The mean of the scores of its new seeds."""
        return statistics.fmean(self.scores) if self.scores else math.nan

    @property
    def spread(self) -> float:
        """Their standard deviation; 0 if there is only one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else 0.0


def confirmed(
    candidates: Sequence[TrialRun], confirmations: Sequence[Confirmation], most: int, objective: Objective
) -> list[Confirmed]:
    """Returns the candidates of a race that is over, the winner first; none if it is not over."""
    ranked, scores = {trial.number: trial for trial in candidates}, scores_of(confirmations)
    stand = race(list(ranked), scores, most, objective)
    if stand.open or len(ranked) < 2:
        return []
    order = [*stand.left, *(number for number in ranked if number not in stand.left)]
    return [
        Confirmed(
            ranked[number],
            tuple(score for score in scores.get(number, {}).values() if score is not None),
            stand.left.index(number) + 1 if number in stand.left else None,
        )
        for number in order
    ]


def scores_of(confirmations: Sequence[Confirmation]) -> dict[int, dict[int, float | None]]:
    """Returns the scores of the trainings that have ended."""
    found: dict[int, dict[int, float | None]] = {}
    for one in sorted(confirmations, key=lambda one: one.seed):
        if one.has_ended:
            found.setdefault(one.trial, {})[one.seed] = one.score
    return found
