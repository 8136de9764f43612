"""The file predictions.npz: names, write, read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnist_exp.data.splits import Splits
from mnist_exp.evaluation.metrics import Evaluation


def write_predictions(path: Path, splits: Splits, evaluations: Mapping[str, Evaluation]) -> None:
    """One npz: for each split probabilities float16 (n, classes), labels and image digests; float16 keeps it small.

    predicted stands beside them, since rounding may tie two probabilities.
    """
    arrays: dict[str, Any] = {}
    for name, part in splits.scored.items():
        evaluation = evaluations[name]
        arrays[f"{name}_probabilities"] = evaluation.probabilities.astype(np.float16)
        arrays[f"{name}_predicted"] = evaluation.predicted.astype(np.int16)
        arrays[f"{name}_labels"] = part.labels.astype(np.int16)
        arrays[f"{name}_digests"] = part.digests
    np.savez_compressed(path, **arrays)
