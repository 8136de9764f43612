"""What happens between epochs, as Keras callbacks: checkpoints on disk, reports, an end to hopeless trainings."""

import math
from collections.abc import Callable
from typing import Any

import keras

from mnist_exp.config.schema import Training
from mnist_exp.errors import TrainingError
from mnist_exp.evaluation.history import direction


class Watch(keras.callbacks.Callback):
    """Tells a run's listeners how far it is, and ends a training whose loss is no longer finite."""

    def __init__(
        self, on_step: Callable[[int, int, int], None], on_epoch: Callable[[int, dict[str, float]], bool | None]
    ) -> None:
        super().__init__()
        self.on_step, self.on_epoch = on_step, on_epoch
        self._epoch = 1

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss must stay finite, but was {loss} in epoch {self._epoch}; "
                f"lower optimizer.learning_rate (now {learning_rate(self.model):g})"
            )
        self.on_step(self._epoch, batch + 1, self.params.get("steps") or 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        if self.on_epoch(epoch + 1, {**metrics, "learning_rate": learning_rate(self.model)}):
            self.model.stop_training = True


def patient(settings: Training) -> list[keras.callbacks.Callback]:
    """Keras's own callbacks that wait for a better epoch, as far as the settings ask for them."""
    chosen: list[keras.callbacks.Callback] = []
    if patience := settings.reduce_lr_patience:
        monitor = settings.reduce_lr_monitor
        chosen.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor, settings.reduce_lr_factor, patience, mode="max" if direction(monitor) > 0 else "min"
            )
        )
    if patience := settings.early_stopping_patience:
        monitor = settings.early_stopping_monitor
        chosen.append(
            keras.callbacks.EarlyStopping(monitor, patience=patience, mode="max" if direction(monitor) > 0 else "min")
        )
    return chosen


def learning_rate(model: keras.Model) -> float:
    """The learning rate of the next batch."""
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
