"""The file predictions.npz of a run: the names of its arrays, write and read.

For each split that was evaluated, `val` and `test`, there are
`{split}_probabilities`: float16 (n, classes), which is small but may make two probabilities equal,
`{split}_predicted`: int16 (n,), the most probable class before rounding,
`{split}_labels`: int16 (n,), and `{split}_digests`: the digest of each image, bytes (n,).
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
        arrays[f"{name}_probabilities"] = evaluation.probabilities.astype(np.float16)
        arrays[f"{name}_predicted"] = evaluation.predicted.astype(np.int16)
        arrays[f"{name}_labels"] = part.labels.astype(np.int16)
        arrays[f"{name}_digests"] = part.digests
    np.savez_compressed(path, **arrays)


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Reads every array of the file."""
    with np.load(path) as arrays:
        return dict(arrays)
