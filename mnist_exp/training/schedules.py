"""Schedules of the learning rate beside those of Keras."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from mnist_exp.config.components import is_function
from mnist_exp.errors import ConfigError, Problem


@keras.saving.register_keras_serializable("mnist_exp")
class Warmup(LearningRateSchedule):
    """Rises linearly from zero to the first value of another schedule, which then begins.

    after: a number or a schedule of Keras's. steps: the batches of the rise.
    """

    def __init__(self, after: float | LearningRateSchedule, steps: int) -> None:
        self.after, self.steps = after, steps

    def __call__(self, step: Any) -> Any:
        number = ops.cast(step, "float32")
        risen = ops.minimum(number / self.steps, 1.0)
        return risen * self._after(ops.maximum(number - self.steps, 0.0))

    def _after(self, step: Any) -> Any:
        return self.after(step) if callable(self.after) else self.after

    def get_config(self) -> dict[str, Any]:
        return {"after": keras.saving.serialize_keras_object(self.after), "steps": self.steps}


class FunctionSchedule(LearningRateSchedule):
    """A plain function of the number of batches so far."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, step: Any) -> Any:
        return ops.cast(self.function(step), "float32")

    def get_config(self) -> dict[str, Any]:
        return {"function": describe_function(self.function)}


def describe_function(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns what tells functions apart in the config of what calls them, in the form in which Keras names one."""
    inner = function.func if isinstance(function, functools.partial) else function
    keys = repr(function.keywords) if isinstance(function, functools.partial) else ""
    return {"class_name": "function", "config": f"{inner.__module__}.{inner.__qualname__}{keys}"}


def to_schedule(made: Any) -> LearningRateSchedule:
    """Returns a schedule of Keras's as it is, and a function as one. Raises ConfigError for anything else."""
    if isinstance(made, LearningRateSchedule):
        return made
    if not is_function(made):
        rule = "must make a schedule of Keras's, or be a function of the number of batches so far"
        raise ConfigError(Problem("optimizer.schedule", rule, type(made).__name__))
    return FunctionSchedule(made)
