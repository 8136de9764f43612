"""Keras callbacks that report the progress of a training and that wait for better epochs."""

import math
from collections.abc import Callable
from typing import Any

import keras

from mnist_exp.config.objective import Objective
from mnist_exp.config.schema import Training
from mnist_exp.errors import Problem, TrainingError
from mnist_exp.signals import raise_received


class ReportProgress(keras.callbacks.Callback):
    """Reports each step and epoch. Raises TrainingError if the loss is not finite, in training or in validation."""

    def __init__(
        self, on_step: Callable[[int, int, int], None], on_epoch: Callable[[int, dict[str, float]], bool | None]
    ) -> None:
        super().__init__()
        self.on_step, self.on_epoch = on_step, on_epoch
        self._epoch = 1

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        raise_received()
        loss = float((logs or {}).get("loss", 0.0))
        self._check("the loss", loss)
        self.on_step(self._epoch, batch + 1, self.params.get("steps") or 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
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


def learning_rate(model: keras.Model) -> float:
    """Returns the learning rate of the next batch."""
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
