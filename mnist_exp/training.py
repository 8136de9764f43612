"""Compiles and fits a model, with what a run asks of callbacks."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mnist_exp.data import Part, Splits, sample
from mnist_exp.types import Count, Monitor, Share

if TYPE_CHECKING:
    import keras
    import numpy as np

# Images a call of validation and prediction: large enough for full speed, small enough for any net's memory.
EVALUATION_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train; conf/training/default.yaml explains each key."""

    epochs: Count
    batch_size: Count
    batches: Count | None
    loss: Literal["sparse_categorical_crossentropy", "categorical_crossentropy"]
    label_smoothing: Share
    weights: Literal["last", "best"]
    checkpoint_monitor: Monitor
    early_stopping_monitor: Monitor
    early_stopping_patience: Count | None
    reduce_lr_monitor: Monitor
    reduce_lr_patience: Count | None
    reduce_lr_factor: Share
    compiled_epoch: Literal["auto", "on", "off"]
    precision: Literal["float32", "mixed_bfloat16"]
    deterministic: bool
    resume: str | None

    def images_used(self, available: int) -> int:
        """How many of the available training images an epoch takes."""
        return available if self.batches is None else min(available, self.batches * self.batch_size)

    def steps(self, available: int) -> int:
        """Batches of the whole training, the short last ones included."""
        return self.epochs * math.ceil(self.images_used(available) / self.batch_size)


@dataclass
class History:
    """Metrics epoch by epoch, as Keras names them.

    used_epoch: the epoch (from 1) whose weights the model ended with; mode: how epochs ran, xla, windows or off.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    used_epoch: int = 0
    mode: str = "off"

    def best_epoch(self, monitor: str) -> int:
        """The epoch (from 1) with the best value of this metric; the first of equals."""
        sign = direction(monitor)
        return max(range(len(self.epochs)), key=lambda index: (sign * self.epochs[index][monitor], -index)) + 1

    def curves(self) -> dict[str, list[float]]:
        """One list a metric."""
        return {name: [epoch[name] for epoch in self.epochs] for name in (self.epochs[0] if self.epochs else {})}


def direction(monitor: str) -> int:
    """1 where more of this metric is better, -1 where less is."""
    return -1 if monitor.endswith("loss") else 1


def fit(
    model: "keras.Model",
    splits: Splits,
    optimizer: "keras.optimizers.Optimizer",
    settings: Training,
    *,
    seed: int,
    folder: Path,
    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None,
    on_epoch: Callable[[int, dict[str, float]], bool | None] = lambda epoch, metrics: None,
) -> History:
    """Trains the model in place and returns its history; it ends with the last or the best weights, as settings say.

    folder: where checkpoints are kept; one found there is continued, optimizer state included. on_step hears (epoch,
    step, steps) and on_epoch (epoch, metrics), epochs counted from 1; it returns True to end the training. Raises
    TrainingError once the loss is not finite.
    """
    from mnist_exp.callbacks import Checkpoint, Watch, patient
    from mnist_exp.compiled import Order, feed, mode_for

    mode = mode_for(model, settings.compiled_epoch)
    # Elsewhere Keras would choose XLA for validation and prediction: no faster once compiled, slower for convolutions.
    by_xla = "auto" if mode == "off" else False
    model.compile(optimizer, loss_of(settings), metrics=["accuracy"], jit_compile=by_xla)
    train = sample(splits.train, settings.images_used(len(splits.train)), seed)
    order = Order(len(train), settings.batch_size, seed)
    batches, new_order = feed(model, train.images, targets_of(train, settings, splits), order, mode)
    waiting = patient(settings)
    checkpoint = Checkpoint(folder, settings.checkpoint_monitor)
    trained = checkpoint.restore(model, waiting, settings.epochs)
    if trained < settings.epochs:
        model.fit(
            batches,
            epochs=settings.epochs,
            initial_epoch=trained,
            shuffle=False,  # the order is ours
            validation_data=(splits.validation.images, targets_of(splits.validation, settings, splits)),
            validation_batch_size=EVALUATION_BATCH,
            callbacks=[new_order, *waiting, Watch(on_step, on_epoch), checkpoint],
            verbose=0,
        )
    model.train_function = None  # it holds the training images
    history = checkpoint.history
    history.used_epoch, history.mode = len(history.epochs), mode
    if settings.weights == "best":
        checkpoint.load_best(model)
        history.used_epoch = history.best_epoch(settings.checkpoint_monitor)
    return history


def loss_of(settings: Training) -> Any:
    """Keras's loss for these settings."""
    import keras

    if settings.loss == "categorical_crossentropy":
        return keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy()


def targets_of(part: Part, settings: Training, splits: Splits) -> "np.ndarray":
    """What the loss compares with: labels (n,), or one-hot float32 (n, classes) for categorical cross-entropy."""
    import keras

    if settings.loss == "categorical_crossentropy":
        return keras.utils.to_categorical(part.labels, len(splits.class_names))
    return part.labels
