"""Tests whether runs differ on the same images, and corrects the tests of several runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mnist_exp.evaluation.predictions import Predictions

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class PairedTest:
    """McNemar's exact test (1947) of two runs on the same images.

    first_only, second_only: the number of images that only the first or only the second run classified correctly, of
    `images`. p: the probability of a split at least as uneven if both runs were equally good.
    """

    first_only: int
    second_only: int
    images: int
    p: float

    @property
    def verdict(self) -> str:
        """Whether the first run is `better` or `worse`, or `no difference shown`."""
        return self._judge(self.p)

    def _judge(self, p: float) -> str:
        if p >= SIGNIFICANT or self.first_only == self.second_only:
            return "no difference shown"
        return "better" if self.first_only > self.second_only else "worse"


@dataclass(frozen=True)
class CorrectedTest(PairedTest):
    """A paired test that is one of several. adjusted_p: p with the correction, which the verdict follows."""

    adjusted_p: float

    @property
    def verdict(self) -> str:
        return self._judge(self.adjusted_p)


def test_pair(first: Predictions | None, second: Predictions | None, split: str) -> PairedTest | None:
    """Tests two runs on the images that both have predictions for, which are matched by their digests.

    split: `val` or `test`. Returns None if there are no common images.
    """
    return test_pairs([first, second], [(0, 1)], split).get((0, 1))


def test_pairs(
    runs: Sequence[Predictions | None], pairs: Iterable[tuple[int, int]], split: str
) -> dict[tuple[int, int], PairedTest]:
    """Does what `test_pair` does for pairs of places in `runs`. Leaves out the pairs without common images."""
    scored = {place: _Scored(run, split) for place, run in enumerate(runs) if run and f"{split}_digests" in run}
    counts = {
        (one, two): scored[one].count_against(scored[two]) for one, two in pairs if one in scored and two in scored
    }
    shared = {pair: numbers for pair, numbers in counts.items() if numbers[2]}
    p_values = _exact_p([numbers[:2] for numbers in shared.values()])
    return {pair: PairedTest(*shared[pair], float(p)) for pair, p in zip(shared, p_values, strict=True)}


test_pair.__test__ = test_pairs.__test__ = False  # type: ignore[attr-defined]  # not tests of pytest


def mcnemar(first: np.ndarray, second: np.ndarray) -> PairedTest:
    """Tests two runs by the images that each classified correctly: bool (n,)."""
    counts = int((first & ~second).sum()), int((~first & second).sum())
    return PairedTest(*counts, len(first), float(_exact_p([counts])[0]))


def correct_all(tests: Sequence[PairedTest]) -> list[CorrectedTest]:
    """Returns the tests with the p values of `adjust_holm`."""
    adjusted = adjust_holm([test.p for test in tests])
    return [
        CorrectedTest(test.first_only, test.second_only, test.images, test.p, p)
        for test, p in zip(tests, adjusted, strict=True)
    ]


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p values with Holm's correction (1979).

    If no pair differs, the probability that any of them falls below a limit is at most that limit.
    """
    values = np.asarray(p_values, float)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def match_images(first: Predictions, second: Predictions, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the images that both runs scored are in the first and in the second run: int (n,) each."""
    digests = f"{split}_digests"
    _, ours, theirs = np.intersect1d(first[digests], second[digests], return_indices=True)
    return ours, theirs


class _Scored:
    """Which images a run classified correctly, in the order of their digests, each image once."""

    def __init__(self, predictions: Predictions, split: str) -> None:
        self.digests, places = np.unique(predictions[f"{split}_digests"], return_index=True)
        self.correct = (predictions[f"{split}_predicted"] == predictions[f"{split}_labels"])[places]
        self.key = self.digests.tobytes()

    def count_against(self, other: "_Scored") -> tuple[int, int, int]:
        """Returns the number of images that only this run, only the other run and both runs have scored."""
        ours, theirs = self.correct, other.correct
        if self.key != other.key:
            _, here, there = np.intersect1d(self.digests, other.digests, assume_unique=True, return_indices=True)
            ours, theirs = ours[here], theirs[there]
        return int((ours & ~theirs).sum()), int((~ours & theirs).sum()), len(ours)


def _exact_p(counts: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns the two-sided p of each pair of counts under a fair coin. Its distribution is symmetric."""
    from scipy.stats import binom

    if not counts:
        return np.empty(0)
    fewer, both = np.min(counts, axis=1), np.sum(counts, axis=1)
    return np.minimum(2 * binom.cdf(fewer, both, 0.5), 1)
