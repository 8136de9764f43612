"""Tests whether two runs differ on the same images."""

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
        if self.p >= SIGNIFICANT or self.first_only == self.second_only:
            return "no difference shown"
        return "better" if self.first_only > self.second_only else "worse"


def test_pair(first: Predictions | None, second: Predictions | None, split: str) -> PairedTest | None:
    """Tests two runs on the images that both have predictions for, which are matched by their digests.

    split: `val` or `test`. Returns None if there are no common images.
    """
    if not first or not second or f"{split}_digests" not in first or f"{split}_digests" not in second:
        return None
    _, ours, theirs = np.intersect1d(first[f"{split}_digests"], second[f"{split}_digests"], return_indices=True)
    return mcnemar(_correct(first, split)[ours], _correct(second, split)[theirs]) if len(ours) else None


test_pair.__test__ = False  # type: ignore[attr-defined]  # not a test of pytest


def mcnemar(first: np.ndarray, second: np.ndarray) -> PairedTest:
    """Tests two runs by the images that each classified correctly: bool (n,)."""
    from scipy.stats import binomtest

    first_only, second_only = int((first & ~second).sum()), int((~first & second).sum())
    p = float(binomtest(first_only, first_only + second_only).pvalue) if first_only + second_only else 1.0
    return PairedTest(first_only, second_only, len(first), p)


def _correct(predictions: Predictions, split: str) -> np.ndarray:
    return predictions[f"{split}_predicted"] == predictions[f"{split}_labels"]
