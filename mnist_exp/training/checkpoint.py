"""Checkpoints on disk, from which a killed training is resumed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mnist_exp.errors import Problem, TrainingError
from mnist_exp.evaluation.history import STATE, History
from mnist_exp.training.callbacks import ReportProgress, StopInTime, WatchWeights, has_memory, learning_rate


class Checkpoint(keras.callbacks.Callback):
    """Keeps all variables after the last and the best epoch on disk, as plain arrays in their order, and the history.

    These are the weights, the state of the optimizer and the random states. Before version 0.1.0 it was Keras's file of
    weights, which is still read.

    The state file is replaced last and only complete files belong to it. So if the process is killed at any moment,
    the checkpoint can be used. This must be the last callback, because it records the decisions of the others.

    progress: knows whether a callback before it has stopped the training, which then stays stopped. One that a sweep
    has stopped, or the end of its time, may be continued. others: callbacks that remember epochs (patience). They get
    the epochs of the checkpoint again. own: those of the user. What they remember is kept if they have `get_state` and
    `set_state`. watch: knows the weights of epochs. clock: ends the training in time. They are given what they knew.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        progress: ReportProgress,
        others: Sequence[keras.callbacks.Callback] = (),
        own: Sequence[keras.callbacks.Callback] = (),
        watch: WatchWeights | None = None,
        clock: StopInTime | None = None,
    ) -> None:
        super().__init__()
        self.folder, self.monitor, self.progress = folder, monitor, progress
        self.others, self.own = others, own
        self.watch, self.clock = watch, clock
        self.history = History()
        self._states: list[Any] = []
        folder.mkdir(parents=True, exist_ok=True)

    def restore(self, model: keras.Model, epochs: int) -> int:
        """Loads the checkpoint, if the folder holds one. Returns the number of epochs that need no training."""
        path = self.folder / STATE
        if not path.exists():
            return 0
        state = json.loads(path.read_text())
        self.history = History(state["epochs"])
        model.optimizer.build(model.trainable_variables)
        self._load(model, len(self.history.epochs))
        if states := state.get("random_states"):  # Keras's file does not hold them
            for variable, value in zip(_random_states(model), states, strict=True):
                variable.assign(value)
        self._states = state.get("callbacks", [])
        if self.watch:
            self.watch.digests = state.get("digests", [])
        if self.clock:
            self.clock.spent = state.get("seconds", 0.0)
            if self.clock.is_over:
                return epochs
        return epochs if state["stopped"] else len(self.history.epochs)

    def load_best(self, model: keras.Model) -> None:
        """Loads the weights of the best epoch into the model."""
        self._load(model, self.history.best_epoch(self.monitor))

    def on_train_begin(self, logs: dict | None = None) -> None:
        rate = learning_rate(self.model)
        for epoch, metrics in enumerate(self.history.epochs):
            for callback in self.others:
                callback.on_epoch_end(epoch, dict(metrics))
        if any(isinstance(callback, keras.callbacks.ReduceLROnPlateau) for callback in self.others):
            self.model.optimizer.learning_rate = rate  # getting the epochs again may have reduced it again
        for callback, remembered in zip(self.own, self._states, strict=False):
            if has_memory(callback) and remembered is not None:
                callback.set_state(remembered)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.history.epochs.append({name: float(value) for name, value in (logs or {}).items()})
        with self._arrays(epoch + 1).open("wb") as file:  # no npz: Ctrl-C while one is written raises another error
            for variable in _variables(self.model):
                np.save(file, variable.numpy())
        in_time = self.clock is None or not self.clock.is_over
        state = {"epochs": self.history.epochs, "stopped": self.progress.was_stopped and in_time}
        if self.own:
            state["callbacks"] = [callback.get_state() if has_memory(callback) else None for callback in self.own]
        if self.watch:
            state["digests"] = self.watch.digests
        if self.clock:
            state["seconds"] = self.clock.spent
        temporary = self.folder / f"{STATE}.new"
        temporary.write_text(_to_json(state))
        temporary.replace(self.folder / STATE)
        needed = {epoch + 1, self.history.best_epoch(self.monitor)}
        for old in self.folder.glob("epoch-*"):
            if int(old.name[6:11]) not in needed:
                old.unlink()

    def _load(self, model: keras.Model, epoch: int) -> None:
        path = self._arrays(epoch)
        if not path.exists():
            model.load_weights(path.with_suffix(".weights.h5"))
            return
        with path.open("rb") as file:
            for variable in _variables(model):
                variable.assign(np.load(file))

    def _arrays(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:05d}.npy"


def _to_json(state: dict[str, Any]) -> str:
    try:
        return json.dumps(state)
    except TypeError as error:
        rule = f"must return plain values of JSON from get_state() ({error})"
        raise TrainingError(Problem("training.callbacks", rule, remedy="such as numbers, strings and lists")) from error


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def _random_states(model: keras.Model) -> list[keras.Variable]:
    """Returns the states of dropout and augmentation."""
    return [variable for variable in model.non_trainable_variables if variable.path.endswith("seed_generator_state")]
