"""Checkpoints on disk, from which a killed training continues."""

import json
import os
from pathlib import Path

import keras

from mnist_exp.evaluation.history import History
from mnist_exp.training.callbacks import learning_rate

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


def _random_states(model: keras.Model) -> list[keras.Variable]:
    """The states of dropout and augmentation, which Keras leaves out of its weights file."""
    return [variable for variable in model.non_trainable_variables if variable.path.endswith("seed_generator_state")]
