"""Losses of this project: functions of targets and probabilities that return one number for each image."""

from typing import Any

from keras import ops


def focal(targets: Any, probabilities: Any, gamma: float = 2.0) -> Any:
    """Counts images less of which the net is sure (Lin et al. 2017). targets: one-hot (n, classes)."""
    true = ops.clip(ops.sum(targets * probabilities, axis=-1), 1e-7, 1.0)
    return -((1 - true) ** gamma) * ops.log(true)
