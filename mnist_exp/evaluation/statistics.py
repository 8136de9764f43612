"""Tests whether two runs differ on the same images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SIGNIFICANT = 0.05

Predictions = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Paired:
    """Two runs on the same images: how many only the first had right, only the second, and of how many.

    p: of McNemar's exact test (1947), the chance of so uneven a split if both were equally good.
    """

    first_only: int
    second_only: int
    images: int
    p: float

    @property
    def verdict(self) -> str:
        """In words, seen from the first."""
        if self.p >= SIGNIFICANT or self.first_only == self.second_only:
            return "no difference shown"
        return "better" if self.first_only > self.second_only else "worse"


def paired(first: Predictions | None, second: Predictions | None, split: str) -> Paired | None:
    """McNemar's test on the images that both have predictions for, found by their digests; None where there are none.

    first, second: arrays of predictions.npz; split: val or test.
    """
    if not first or not second or f"{split}_digests" not in first or f"{split}_digests" not in second:
        return None
    _, ours, theirs = np.intersect1d(first[f"{split}_digests"], second[f"{split}_digests"], return_indices=True)
    if not len(ours):
        return None
    right = _right(first, split)[ours], _right(second, split)[theirs]
    return mcnemar(*right)


def mcnemar(first: np.ndarray, second: np.ndarray) -> Paired:
    """The exact test on bool (n,): which images each had right."""
    from scipy.stats import binomtest

    b, c = int((first & ~second).sum()), int((~first & second).sum())
    p = float(binomtest(b, b + c).pvalue) if b + c else 1.0
    return Paired(b, c, len(first), p)


def _right(predictions: Mapping[str, Any], split: str) -> np.ndarray:
    return predictions[f"{split}_predicted"] == predictions[f"{split}_labels"]
