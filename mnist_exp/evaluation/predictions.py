"""The file predictions.npz of a run: the names of its arrays, write and read.

For each split that was evaluated, `val` and `test`, there are
`{split}_probabilities`: float32 (n, classes), as the net computes them,
`{split}_log_likelihoods`: float32 (n,), the logarithm of the probability of the true class, also of one that is 0 as a
float32,
`{split}_predicted`: int16 (n,), the most probable class,
`{split}_labels`: int16 (n,), and `{split}_digests`: the digest of each image, bytes (n,).
Metrics that are computed from the file are those that the run logged, within 1e-6 of their value.

Versions before 0.1.0 stored probabilities as float16, where a small one became 0, and no log_likelihoods.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnist_exp.data.splits import Splits
from mnist_exp.evaluation.metrics import Evaluation

Predictions = Mapping[str, np.ndarray]


def write_predictions(path: Path, splits: Splits, evaluations: Mapping[str, Evaluation]) -> None:
    """Writes the predictions of every split that was evaluated."""
    arrays: dict[str, Any] = {}
    for name, part in splits.scored.items():
        evaluation = evaluations[name]
        arrays[f"{name}_probabilities"] = evaluation.probabilities.astype(np.float32)
        arrays[f"{name}_log_likelihoods"] = evaluation.log_likelihoods.astype(np.float32)
        arrays[f"{name}_predicted"] = evaluation.predicted.astype(np.int16)
        arrays[f"{name}_labels"] = part.labels.astype(np.int16)
        arrays[f"{name}_digests"] = part.digests
    np.savez_compressed(path, **arrays)


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Reads every array of the file."""
    with np.load(path) as arrays:
        return dict(arrays)
