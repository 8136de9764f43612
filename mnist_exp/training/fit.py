"""Fits a model to the training images of a data set."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnist_exp.config.schema import Training
from mnist_exp.data.splits import Splits, sample
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.training.build import build_callbacks, build_loss, build_metrics, takes_integers, weigh_classes

if TYPE_CHECKING:
    import keras

    from mnist_exp.training.augmentation import Augmentation


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
    augmentation: "Augmentation | None" = None,
    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None,
    on_epoch: Callable[[int, dict[str, float]], bool | None] = lambda epoch, metrics: None,
    on_note: Callable[[str], None] = lambda text: None,
    timed: Callable[[str], AbstractContextManager[None]] = lambda part: nullcontext(),
) -> tuple[History, Evaluation]:
    """Trains the model in place. Returns its history, and what it answers for the validation images after it.

    The model ends with the last or the best weights.

    folder: of the checkpoints; if it holds one, the training is resumed from it, with the state of the optimizer.
    augmentation: changes the images of each step of the training.
    on_step: gets (epoch, step, steps). on_epoch: gets (epoch, metrics) and returns True to stop the training. Epochs
    and steps are counted from 1. on_note: gets what the user should know of the way in which it is trained. timed:
    measures the parts `compiling` and `training`. Raises TrainingError if the loss is not finite.
    """
    from mnist_exp.training.augmentation import detach
    from mnist_exp.training.callbacks import (
        ReportProgress,
        StopInTime,
        WatchWeights,
        has_memory,
        hears_batches,
        patience_callbacks,
    )  # fmt: skip
    from mnist_exp.training.checkpoint import Checkpoint
    from mnist_exp.training.loop import PlainLoop, ProgramLoop
    from mnist_exp.training.modes import choose_mode, supports_xla

    with timed("compiling"):
        if augmentation:
            augmentation.attach(model, optimizer)
        own = build_callbacks(settings)
        mode = choose_mode(model, settings.compiled_epoch)
        if heard := [type(callback).__name__ for callback in own if hears_batches(callback)]:
            mode = "off"
            on_note(f"{', '.join(heard)} hears of every batch, so each batch is a call, as in model.fit")
        train = sample(splits.train, settings.images_used(len(splits.train)), seed)
        weights = weigh_classes(settings, train.labels, splits.class_names)
        loss = build_loss(settings)
        metrics, name_metrics = cross_entropy_per_epoch(model, settings, loss, train.images[:1])
        metrics = ["accuracy", *build_metrics(settings), *metrics]
        # In a program it is the program that chooses XLA.
        model.compile(optimizer, loss, metrics=metrics, jit_compile=mode == "off" and supports_xla(model))
        watch = WatchWeights() if own or optimizer.use_ema else None
        clock = StopInTime(settings.timeout) if settings.timeout else None
        patience = patience_callbacks(settings)
        progress = ReportProgress(on_step, on_epoch)
        checkpoint = Checkpoint(folder, settings.checkpoint_monitor, progress, patience, own, watch, clock)
        first = checkpoint.restore(model, settings.epochs)
        if first and (forgetful := [type(callback).__name__ for callback in own if not has_memory(callback)]):
            names = ", ".join(forgetful)
            on_note(f"{names} begins anew: without get_state() and set_state() it is not resumed with the training")
        ours = [one for one in (watch, clock) if one]
        callbacks = [*ours, *name_metrics, *own, *patience, progress, checkpoint]
        given = model, train, splits.validation, splits.class_names, settings, seed
        loop = PlainLoop(*given, weights=weights) if mode == "off" else ProgramLoop(*given, mode, weights=weights)
        loop.begin(first, settings.epochs, callbacks)
    with timed("training"):
        loop.fit()
        optimizer.finalize_variable_values(model.trainable_weights)  # averages, if it keeps them
        history = checkpoint.history
        history.used_epoch, history.mode = len(history.epochs), mode
        if settings.weights == "best":
            checkpoint.load_best(model)
            history.used_epoch = history.best_epoch(settings.checkpoint_monitor)
        elif watch:
            found = watch.find_epoch(model)
            history.used_epoch, history.is_of_epoch = found or history.used_epoch, found is not None
        detach(model)
        return history, loop.evaluate()


def cross_entropy_per_epoch(
    model: "keras.Model", settings: Training, loss: "keras.losses.Loss", image: np.ndarray
) -> tuple[list["keras.metrics.Metric"], list["keras.callbacks.Callback"]]:
    """Returns the metrics and callbacks with which Keras reports `val_cross_entropy` after every epoch.

    If the loss is the cross-entropy itself, it gets this name, too, which takes no time. Else, with label smoothing,
    penalties of weights or another loss, it is a metric of its own. A net that does not end with a softmax gets none,
    because Keras clips its probabilities. image: (1, height, width, channels).
    """
    import keras

    from mnist_exp.training.evaluate import logits_of

    if logits_of(model(image, training=False)) is None:
        return [], []
    if settings.label_smoothing or model.losses or isinstance(settings.loss, dict):
        metrics = keras.metrics
        kind = metrics.SparseCategoricalCrossentropy if takes_integers(loss) else metrics.CategoricalCrossentropy
        return [kind(name="cross_entropy")], []

    def name_loss(epoch: int, logs: dict[str, float]) -> None:
        logs["val_cross_entropy"] = logs["val_loss"]

    return [], [keras.callbacks.LambdaCallback(on_epoch_end=name_loss)]
