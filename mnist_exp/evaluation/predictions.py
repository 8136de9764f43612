"""The file predictions.npz of a run: the names of its arrays, write and read.

For each split that was evaluated, `val` and `test`, there are
`{split}_probabilities`: float32 (n, classes), rounded to a millionth, which makes the file much smaller,
`{split}_log_likelihoods`: float32 (n,), the logarithm of the probability of the true class, also of one that is 0 as a
float32,
`{split}_predicted`: int16 (n,), the most probable class,
`{split}_labels`: int16 (n,), and `{split}_digests`: the first 12 digits of the digest of each image, bytes (n,).
Metrics that are computed from the file are those that the run logged, within 1e-6 of their value.

Versions before 0.1.0 stored probabilities as float16, where a small one became 0, no log_likelihoods, and all digits.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.splits import Splits
from mnist_exp.evaluation.metrics import Evaluation

STEPS = 2**20  # between 0 and 1: the last bits of a probability are noise, which does not compress
DIGEST = "S12"  # two of a million images share one with a probability of 0.2%
Predictions = Mapping[str, np.ndarray]


def write_predictions(path: Path, splits: Splits, evaluations: Mapping[str, Evaluation]) -> None:
    """Writes the predictions of every split that was evaluated."""
    arrays: dict[str, Any] = {}
    for name, part in splits.scored.items():
        evaluation = evaluations[name]
        arrays[f"{name}_probabilities"] = _round(evaluation.probabilities)
        arrays[f"{name}_log_likelihoods"] = evaluation.log_likelihoods.astype(np.float32)
        arrays[f"{name}_predicted"] = evaluation.predicted.astype(np.int16)
        arrays[f"{name}_labels"] = part.labels.astype(np.int16)
        arrays[f"{name}_digests"] = digests_of(part)
    try:
        np.savez_compressed(path, **arrays)
    except ValueError as error:
        if isinstance(error.__context__, Exception | None):
            raise
        raise error.__context__ from None  # Ctrl-C, which made the archive raise another error when it was closed


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Reads every array of the file."""
    with np.load(path) as arrays:
        return {name: array.astype(DIGEST) if name.endswith("_digests") else array for name, array in arrays.items()}


def digests_of(part: ImageSet) -> np.ndarray:
    """Returns the digests of these images as predictions have them: bytes (n,)."""
    return part.digests.astype(DIGEST)


def _round(probabilities: np.ndarray) -> np.ndarray:
    return (np.round(probabilities.astype(np.float64) * STEPS) / STEPS).astype(np.float32)
