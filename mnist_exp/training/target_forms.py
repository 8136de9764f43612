"""Metrics that compare with another form of the targets than the loss: with integers, or with one-hot ones."""

from typing import Any

import keras
from keras import ops


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
