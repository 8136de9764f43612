"""Fits a model to the training images of a data set."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_exp.config.schema import Training
from mnist_exp.data.splits import Splits, sample
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation

if TYPE_CHECKING:
    import keras


def prepare_keras(seed: int, settings: Training) -> None:
    """Imports TensorFlow, forgets nets that were built before, seeds Python, NumPy and TensorFlow.

    Sets precision and determinism of everything that is built later. Must come before TensorFlow's first operation.
    """
    import keras
    from tensorflow.python.framework import config

    from mnist_exp.training.program_cache import forget_inherited, open_cache

    forget_inherited()
    if settings.program_cache:
        open_cache()
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(settings.precision)
    switch = config.enable_op_determinism if settings.deterministic else config.disable_op_determinism
    switch()


def fit(
    model: "keras.Model",
    optimizer: "keras.optimizers.Optimizer",
    splits: Splits,
    settings: Training,
    seed: int,
    folder: Path,
    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None,
    on_epoch: Callable[[int, dict[str, float]], bool | None] = lambda epoch, metrics: None,
    timed: Callable[[str], AbstractContextManager[None]] = lambda part: nullcontext(),
) -> tuple[History, Evaluation]:
    """Trains the model in place. Returns its history, and what it answers for the validation images after it.

    The model ends with the last or the best weights.

    folder: of the checkpoints; if it holds one, the training is resumed from it, with the state of the optimizer.
    on_step: gets (epoch, step, steps). on_epoch: gets (epoch, metrics) and returns True to stop the training. Epochs
    and steps are counted from 1. timed: measures the parts `compiling` and `training`. Raises TrainingError if the loss
    is not finite.
    """
    from mnist_exp.training.callbacks import ReportProgress, patience_callbacks
    from mnist_exp.training.checkpoint import Checkpoint
    from mnist_exp.training.loop import PlainLoop, ProgramLoop
    from mnist_exp.training.modes import choose_mode

    with timed("compiling"):
        mode = choose_mode(model, settings.compiled_epoch)
        train = sample(splits.train, settings.images_used(len(splits.train)), seed)
        metrics, name_metrics = cross_entropy_per_epoch(model, settings, train.images[:1])
        # In a program it is the program that chooses XLA.
        jit_compile = "auto" if mode == "off" else False
        model.compile(optimizer, build_loss(settings), metrics=["accuracy", *metrics], jit_compile=jit_compile)
        patience = patience_callbacks(settings)
        checkpoint = Checkpoint(folder, settings.checkpoint_monitor, patience)
        first = checkpoint.restore(model, settings.epochs)
        callbacks = [*name_metrics, *patience, ReportProgress(on_step, on_epoch), checkpoint]
        given = model, train, splits.validation, splits.class_names, settings, seed
        loop = PlainLoop(*given) if mode == "off" else ProgramLoop(*given, mode)
    with timed("training"):
        if first < settings.epochs:
            loop.fit(first, settings.epochs, callbacks)
        history = checkpoint.history
        history.used_epoch, history.mode = len(history.epochs), mode
        if settings.weights == "best":
            checkpoint.load_best(model)
            history.used_epoch = history.best_epoch(settings.checkpoint_monitor)
        return history, loop.evaluate()


def build_loss(settings: Training) -> Any:
    """Returns Keras's loss for these settings."""
    import keras

    if settings.loss == "categorical_crossentropy":
        return keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy()


def cross_entropy_per_epoch(
    model: "keras.Model", settings: Training, image: np.ndarray
) -> tuple[list["keras.metrics.Metric"], list["keras.callbacks.Callback"]]:
    """Returns the metrics and callbacks with which Keras reports `val_cross_entropy` after every epoch.

    If the loss is the cross-entropy itself, it gets this name, too, which takes no time. Else, with label smoothing or
    penalties of weights, it is a metric of its own. A net that does not end with a softmax gets none, because Keras
    clips its probabilities. image: (1, height, width, channels).
    """
    import keras

    from mnist_exp.training.evaluate import logits_of

    if logits_of(model(image, training=False)) is None:
        return [], []
    if settings.label_smoothing:
        return [keras.metrics.CategoricalCrossentropy(name="cross_entropy")], []
    if model.losses:
        sparse = settings.loss == "sparse_categorical_crossentropy"
        kind = keras.metrics.SparseCategoricalCrossentropy if sparse else keras.metrics.CategoricalCrossentropy
        return [kind(name="cross_entropy")], []

    def name_loss(epoch: int, logs: dict[str, float]) -> None:
        logs["val_cross_entropy"] = logs["val_loss"]

    return [], [keras.callbacks.LambdaCallback(on_epoch_end=name_loss)]
