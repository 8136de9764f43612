"""Metrics that compare with another form of the targets than the loss: with integers, or with one-hot ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import global_state

from mnist_exp.config.schema import Training
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.training.build import build_loss, build_metrics
from mnist_exp.training.evaluate import encode_labels


class WithTargets(keras.metrics.Metric):
    """A metric that gets its targets in the form that it needs, whatever the loss compares with.

    integers: whether it needs labels (n,), else it gets one-hot ones, float32 (n, classes).
    """

    def __init__(self, metric: keras.metrics.Metric, integers: bool) -> None:
        super().__init__(name=metric.name, dtype=metric.dtype)
        self.metric, self.integers = metric, integers

    def update_state(self, targets: Any, probabilities: Any, *given: Any, **more: Any) -> Any:
        if self.integers:
            wanted = ops.argmax(targets, axis=-1)
        else:
            labels = ops.cast(ops.reshape(targets, (-1,)), "int32")
            wanted = ops.one_hot(labels, probabilities.shape[-1], dtype="float32")
        return self.metric.update_state(wanted, probabilities, *given, **more)

    def result(self) -> Any:
        return self.metric.result()

    def reset_state(self) -> None:
        self.metric.reset_state()

    def get_config(self) -> dict[str, Any]:
        made = [type(self.metric).__qualname__, self.metric.get_config()]
        return {**super().get_config(), "metric": made, "integers": self.integers}


def check_metrics(settings: Training, classes: int) -> None:
    """Raises ConfigError for a metric that gives an array. An error in its own code arrives as it was raised."""
    if not settings.metrics:
        return
    targets = encode_labels(np.arange(classes), build_loss(settings), classes)
    probabilities = ops.full((classes, classes), 1 / classes)
    with _same_names():
        metrics = build_metrics(settings)
    for place, metric in enumerate(metrics):
        metric.update_state(ops.convert_to_tensor(targets), probabilities)
        for value in keras.tree.flatten(metric.result()):  # a metric may give several numbers by name
            if shape := tuple(ops.shape(value)):
                rule = f"must give one number, but {metric.name} gives an array of shape {shape}"
                remedy = "average over the classes, as average:macro does for F1Score"
                raise ConfigError(Problem(f"training.metrics[{place}]", rule, remedy=remedy))


@contextmanager
def _same_names() -> Iterator[None]:
    """Lets Keras give the names of this block again: the metrics of the training are not auc_1 and precision_1."""
    before = dict(global_state.get_global_attribute("object_name_uids") or {})
    try:
        yield
    finally:
        after = global_state.get_global_attribute("object_name_uids")
        if after is not None:
            after.clear()
            after.update(before)
