"""Keras callbacks that report the progress of a training, that wait for better epochs, and those of the user."""

import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

import keras

from mnist_exp.config.objective import Objective
from mnist_exp.config.schema import Training
from mnist_exp.errors import Problem, TrainingError
from mnist_exp.signals import raise_received

# What a program, which runs many batches in one call, cannot call.
BATCH_HOOKS = (
    "on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end",
    "on_test_begin", "on_test_end", "on_test_batch_begin", "on_test_batch_end",
)  # fmt: skip


class ReportProgress(keras.callbacks.Callback):
    """Reports each step and epoch. Raises TrainingError if the loss is not finite, in training or in validation.

    was_stopped: whether another callback had stopped the training before the last epoch was reported.
    """

    def __init__(
        self, on_step: Callable[[int, int, int], None], on_epoch: Callable[[int, dict[str, float]], bool | None]
    ) -> None:
        super().__init__()
        self.on_step, self.on_epoch = on_step, on_epoch
        self.was_stopped = False
        self._epoch = 1

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        raise_received()
        loss = float((logs or {}).get("loss", 0.0))
        self._check("the loss", loss)
        self.on_step(self._epoch, batch + 1, self.params.get("steps") or 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.was_stopped = self.model.stop_training
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        self._check("the loss of the validation images", metrics["val_loss"])
        if self.on_epoch(epoch + 1, {**metrics, "learning_rate": learning_rate(self.model)}):
            self.model.stop_training = True

    def _check(self, name: str, loss: float) -> None:
        if not math.isfinite(loss):
            rule = f"must stay finite, but was {loss} in epoch {self._epoch}"
            remedy = f"lower optimizer.learning_rate (now {learning_rate(self.model):g})"
            raise TrainingError(Problem(name, rule, remedy=remedy))


def patience_callbacks(settings: Training) -> list[keras.callbacks.Callback]:
    """Returns the callbacks that lower the learning rate or stop the training if no better epoch follows."""
    chosen: list[keras.callbacks.Callback] = []
    if patience := settings.reduce_lr_patience:
        monitor = settings.reduce_lr_monitor
        mode = Objective.from_metric(monitor).direction
        chosen.append(keras.callbacks.ReduceLROnPlateau(monitor, settings.reduce_lr_factor, patience, mode=mode))
    if patience := settings.early_stopping_patience:
        monitor = settings.early_stopping_monitor
        mode = Objective.from_metric(monitor).direction
        chosen.append(keras.callbacks.EarlyStopping(monitor, patience=patience, mode=mode))
    return chosen


class WatchWeights(keras.callbacks.Callback):
    """Knows the weights with which each epoch was validated. This must be the first callback.

    Callbacks of the user's own and averages of weights may put others in their place. digests: by epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.digests: list[str] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.digests.append(_digest(self.model))

    def find_epoch(self, model: keras.Model) -> int | None:
        """Returns the last epoch, counted from 1, that had the weights that the model has now; None if none had."""
        now = _digest(model)
        return next((number for number in range(len(self.digests), 0, -1) if self.digests[number - 1] == now), None)


def _digest(model: keras.Model) -> str:
    sha = hashlib.blake2b(digest_size=16)
    for variable in model.weights:
        sha.update(keras.ops.convert_to_numpy(variable).tobytes())
    return sha.hexdigest()


class StopInTime(keras.callbacks.Callback):
    """Stops the training after the epoch in which its time was over. spent: the seconds of all processes so far."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit, self.spent = limit, 0.0
        self._before, self._begun = 0.0, 0.0

    @property
    def is_over(self) -> bool:
        """Whether no further epoch may begin."""
        return self.spent >= self.limit

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._before, self._begun = self.spent, time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.spent = self._before + time.monotonic() - self._begun
        if self.is_over:
            self.model.stop_training = True


def hears_batches(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback wants to be called in every batch, or in the validation."""
    plain = keras.callbacks.Callback
    return any(getattr(getattr(callback, name), "__func__", None) is not getattr(plain, name) for name in BATCH_HOOKS)


def has_memory(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback can be asked for what it remembers, and be given it again."""
    return callable(getattr(callback, "get_state", None)) and callable(getattr(callback, "set_state", None))


def learning_rate(model: keras.Model) -> float:
    """Returns the learning rate of the next batch."""
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
