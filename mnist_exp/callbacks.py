"""What happens between epochs, as Keras callbacks: checkpoints on disk, reports, an end to hopeless trainings."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from mnist_exp.errors import TrainingError
from mnist_exp.training import History, Training, direction

STATE = "state.json"


class Checkpoint(keras.callbacks.Callback):
    """Keeps the last and the best epoch's weights on disk, optimizer and random states included, with the history.

    The state file is replaced last and names complete files only, so a kill at any moment leaves a checkpoint that can
    be continued. Must stand last among the callbacks: it records what the others decided.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__()
        self.folder, self.monitor = folder, monitor
        self.history = History()
        self._others: list[keras.callbacks.Callback] = []
        folder.mkdir(parents=True, exist_ok=True)

    def restore(self, model: keras.Model, others: list[keras.callbacks.Callback], epochs: int) -> int:
        """Continues from the folder, if it holds a checkpoint: returns the number of epochs that need no training.

        others: callbacks with a memory (patience), which hear the recorded epochs again.
        """
        path = self.folder / STATE
        if not path.exists():
            return 0
        state = json.loads(path.read_text())
        self.history = History(state["epochs"])
        self._others = others
        model.optimizer.build(model.trainable_variables)
        model.load_weights(self._weights(len(self.history.epochs)))
        for variable, value in zip(_random_states(model), state["random_states"], strict=True):
            variable.assign(value)
        return epochs if state["stopped"] else len(self.history.epochs)

    def load_best(self, model: keras.Model) -> None:
        """Puts the weights of the best epoch into the model."""
        model.load_weights(self._weights(self.history.best_epoch(self.monitor)))

    def on_train_begin(self, logs: dict | None = None) -> None:
        rate = learning_rate(self.model)
        for epoch, metrics in enumerate(self.history.epochs):
            for callback in self._others:
                callback.on_epoch_end(epoch, dict(metrics))
        if any(isinstance(callback, keras.callbacks.ReduceLROnPlateau) for callback in self._others):
            self.model.optimizer.learning_rate = rate  # hearing the epochs again may have shrunk it again
        self._others = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.history.epochs.append({name: float(value) for name, value in (logs or {}).items()})
        path = self._weights(epoch + 1)
        self.model.save_weights(path)
        state = {
            "epochs": self.history.epochs,
            "stopped": bool(self.model.stop_training),
            "random_states": [variable.numpy().tolist() for variable in _random_states(self.model)],
        }
        temporary = self.folder / f"{STATE}.new"
        temporary.write_text(json.dumps(state))
        os.replace(temporary, self.folder / STATE)
        needed = {path, self._weights(self.history.best_epoch(self.monitor))}
        for old in set(self.folder.glob("*.weights.h5")) - needed:
            old.unlink()

    def _weights(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:05d}.weights.h5"


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


def _random_states(model: keras.Model) -> list[keras.Variable]:
    """The states of dropout and augmentation, which Keras leaves out of its weights file."""
    return [variable for variable in model.non_trainable_variables if variable.path.endswith("seed_generator_state")]


def learning_rate(model: keras.Model) -> float:
    """The learning rate of the next batch."""
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
