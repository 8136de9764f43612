"""Compiles and fits a model, with what a run asks of callbacks."""

from typing import TYPE_CHECKING

from mnist_exp.config.schema import Training

if TYPE_CHECKING:
    import keras
    import numpy as np


from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.splits import Splits, sample
from mnist_exp.evaluation.history import History

if TYPE_CHECKING:
    import keras
    import numpy as np

# Images a call of validation and prediction: large enough for full speed, small enough for any net's memory.
EVALUATION_BATCH = 500


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
    from mnist_exp.training.callbacks import ReportProgress, patience_callbacks
    from mnist_exp.training.checkpoint import Checkpoint
    from mnist_exp.training.compiled import Order, feed, mode_for

    mode = mode_for(model, settings.compiled_epoch)
    # Elsewhere Keras would choose XLA for validation and prediction: no faster once compiled, slower for convolutions.
    by_xla = "auto" if mode == "off" else False
    model.compile(optimizer, loss_of(settings), metrics=["accuracy"], jit_compile=by_xla)
    train = sample(splits.train, settings.images_used(len(splits.train)), seed)
    order = Order(len(train), settings.batch_size, seed)
    batches, new_order = feed(model, train.images, targets_of(train, settings, splits), order, mode)
    waiting = patience_callbacks(settings)
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
            callbacks=[new_order, *waiting, ReportProgress(on_step, on_epoch), checkpoint],
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


def targets_of(part: ImageSet, settings: Training, splits: Splits) -> "np.ndarray":
    """What the loss compares with: labels (n,), or one-hot float32 (n, classes) for categorical cross-entropy."""
    import keras

    if settings.loss == "categorical_crossentropy":
        return keras.utils.to_categorical(part.labels, len(splits.class_names))
    return part.labels


def prepare_keras(seed: int, settings: Training) -> None:
    """Seeds Python, numpy and TensorFlow, and sets precision and determinism for all that is built from here on."""
    import keras
    from tensorflow.python.framework import config

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(settings.precision)
    switch = config.enable_op_determinism if settings.deterministic else config.disable_op_determinism
    switch()


def predict(model: "keras.Model", images: "np.ndarray", labels: "np.ndarray") -> tuple["np.ndarray", float]:
    """Probabilities, float32 (n, classes), and the accuracy that Keras's own metric gives for them, in one pass."""
    import keras

    probabilities = model.predict(images, batch_size=EVALUATION_BATCH, verbose=0).astype("float32")
    reported = keras.metrics.SparseCategoricalAccuracy()
    reported.update_state(labels, probabilities)
    return probabilities, float(reported.result())
