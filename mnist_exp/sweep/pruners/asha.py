"""Asynchronous successive halving (ASHA, Li et al. 2020), the variant that stops trials.

At each rung, after `first`, `first * factor`, ... epochs, a trial goes on only if it is among the best 1/factor of the
trials that this rung has seen so far. Nothing waits for others, and no training is begun again.
"""

from collections.abc import Collection

from mnist_exp.config.objective import Objective

FACTOR = 4  # unless sweep.factor says otherwise


def rungs(epochs: int, first: int, factor: int) -> tuple[int, ...]:
    """Returns the epochs at which a trial of so many epochs is compared: 1, 4 of 10 or 16; 1, 4, 16 of 27."""
    found = []
    while first < epochs:
        found.append(first)
        first *= factor
    return tuple(found)


def expected(trials: float, factor: int) -> float:
    """Returns how many of these trials go on after a rung, on average, if their scores come in random order."""
    return sum(max(1, number // factor) / number for number in range(1, round(trials) + 1))


def goes_on(score: float, seen: Collection[float], factor: int, objective: Objective) -> bool:
    """Whether a score is among the best 1/factor of it and those seen. The first one always is."""
    better = sum(objective.is_better(other, score) for other in seen)
    return better < max(1, (len(seen) + 1) // factor)
