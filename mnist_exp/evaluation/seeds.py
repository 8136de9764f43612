"""Compares trainings over several seeds: mean and spread of a metric, and whether two recipes differ."""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

LEVEL, POWER, ALPHA = 0.95, 0.80, 0.05
MOST_SEEDS = 1_000_000
EQUAL = 1e-9  # two values of a metric that differ by less are equal: the store keeps float32 and float64

Scores = Mapping[int, float]  # a metric by seed


@dataclass(frozen=True)
class Interval:
    """A mean with its interval of 95% by Student's t. low, high: None if there is no spread to compute them from."""

    mean: float
    deviation: float | None
    low: float | None
    high: float | None

    @classmethod
    def from_values(cls, values: np.ndarray) -> "Interval":
        """Computes it from float (n,). One value, or equal values, have no interval."""
        mean = float(values.mean())
        if len(values) < 2:
            return cls(mean, None, None, None)
        if np.ptp(values) < EQUAL:
            return cls(mean, 0.0, None, None)
        deviation = float(values.std(ddof=1))
        half = _critical(len(values) - 1, 1 - LEVEL) * deviation / math.sqrt(len(values))
        return cls(mean, deviation, mean - half, mean + half)


@dataclass(frozen=True)
class SeedTest:
    """A t test of two recipes: the metric of the first minus that of the second.

    kind: `paired` by the seeds that both have, or `Welch` (1947) if they share less than two.
    seeds: the number of pairs, or the numbers of seeds of both recipes. p: None if the values have no spread.
    seeds_needed: the seeds per recipe with which a difference of this size is found with a probability of 80% at
    p < 0.05; None if there is no spread, or if more than MOST_SEEDS are needed.
    """

    kind: Literal["paired", "Welch"]
    seeds: tuple[int, ...]
    difference: float
    low: float | None
    high: float | None
    p: float | None
    seeds_needed: int | None


def test_recipes(first: Scores, second: Scores) -> SeedTest | None:
    """Tests two recipes. Returns None if they share less than two seeds, and one of them has only one."""
    shared = sorted(set(first) & set(second))
    if len(shared) >= 2:
        return _test_paired(np.array([first[seed] - second[seed] for seed in shared]))
    if min(len(first), len(second)) < 2:
        return None
    return _test_welch(np.array(list(first.values())), np.array(list(second.values())))


test_recipes.__test__ = False  # type: ignore[attr-defined]  # not a test of pytest


def _test_paired(differences: np.ndarray) -> SeedTest:
    count, found = len(differences), Interval.from_values(differences)
    if not found.deviation:
        return SeedTest("paired", (count,), found.mean, None, None, None, None)
    p = _p_value(found.mean / (found.deviation / math.sqrt(count)), count - 1)
    effect = abs(found.mean) / found.deviation

    def power(n: int) -> float:
        return _power(effect * math.sqrt(n), n - 1)

    return SeedTest("paired", (count,), found.mean, found.low, found.high, p, _smallest_count(power))


def _test_welch(first: np.ndarray, second: np.ndarray) -> SeedTest:
    counts, difference = (len(first), len(second)), float(first.mean() - second.mean())
    if np.ptp(first) < EQUAL and np.ptp(second) < EQUAL:
        return SeedTest("Welch", counts, difference, None, None, None, None)
    spreads = float(first.var(ddof=1)), float(second.var(ddof=1))
    error, freedom = _welch(spreads, counts)
    half = _critical(freedom, 1 - LEVEL) * error

    def power(n: int) -> float:
        error, freedom = _welch(spreads, (n, n))
        return _power(abs(difference) / error, freedom)

    p, needed = _p_value(difference / error, freedom), _smallest_count(power)
    return SeedTest("Welch", counts, difference, difference - half, difference + half, p, needed)


def _welch(spreads: tuple[float, float], counts: tuple[int, int]) -> tuple[float, float]:
    """Returns the standard error of a difference of means, and its degrees of freedom (Welch, Satterthwaite)."""
    parts = [spread / count for spread, count in zip(spreads, counts, strict=True)]
    freedom = sum(parts) ** 2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return math.sqrt(sum(parts)), freedom


def _critical(freedom: float, alpha: float) -> float:
    from scipy.stats import t

    return float(t.isf(alpha / 2, freedom))


def _p_value(statistic: float, freedom: float) -> float:
    from scipy.stats import t

    return float(2 * t.sf(abs(statistic), freedom))


def _power(noncentrality: float, freedom: float) -> float:
    """Returns the probability that a t statistic with this noncentrality is beyond the limits of ALPHA."""
    from scipy.stats import nct

    limit = _critical(freedom, ALPHA)
    below = np.nan_to_num(nct.cdf(-limit, freedom, noncentrality))  # scipy returns nan for some that are nearly 0
    return float(nct.sf(limit, freedom, noncentrality) + below)


def _smallest_count(power: Callable[[int], float]) -> int | None:
    """Returns the smallest number of seeds from 2 to MOST_SEEDS with a power of at least POWER."""
    counts = range(2, MOST_SEEDS + 1)
    place = bisect_left(counts, POWER, key=power)
    return counts[place] if place < len(counts) else None
