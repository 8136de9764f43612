"""Fits a model, asks it for probabilities, and compares its accuracy with the one that Keras reports."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.config.schema import Training
from mnist_exp.data.splits import Splits, sample
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation

if TYPE_CHECKING:
    import keras
    import numpy as np

EVALUATION_BATCH = 500  # images: large enough for full speed, small enough for the memory that any net needs


def prepare_keras(seed: int, settings: Training) -> None:
    """Seeds Python, NumPy and TensorFlow, and sets precision and determinism of everything that is built later."""
    import keras
    from tensorflow.python.framework import config

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
) -> History:
    """Trains the model in place and returns its history. The model ends with the last or the best weights.

    folder: of the checkpoints; if it holds one, the training is resumed from it, with the state of the optimizer.
    on_step: gets (epoch, step, steps). on_epoch: gets (epoch, metrics) and returns True to stop the training. Epochs
    and steps are counted from 1. Raises TrainingError if the loss is not finite.
    """
    from mnist_exp.training.callbacks import ReportProgress, patience_callbacks
    from mnist_exp.training.checkpoint import Checkpoint
    from mnist_exp.training.compiled import BatchOrder, choose_mode, prepare_fit

    mode = choose_mode(model, settings.compiled_epoch)
    # Keras would choose XLA for validation and prediction, which is not faster for dense nets and slower for others.
    jit_compile = "auto" if mode == "off" else False
    model.compile(optimizer, build_loss(settings), metrics=["accuracy"], jit_compile=jit_compile)
    train, validation = sample(splits.train, settings.images_used(len(splits.train)), seed), splits.validation
    order = BatchOrder(len(train), settings.batch_size, seed)
    classes = len(splits.class_names)
    targets = encode_labels(train.labels, settings, classes)
    batches, new_order = prepare_fit(model, train.images, targets, order, mode)
    patience = patience_callbacks(settings)
    checkpoint = Checkpoint(folder, settings.checkpoint_monitor, patience)
    trained = checkpoint.restore(model, settings.epochs)
    if trained < settings.epochs:
        model.fit(
            batches,
            epochs=settings.epochs,
            initial_epoch=trained,
            shuffle=False,  # BatchOrder shuffles
            validation_data=(validation.images, encode_labels(validation.labels, settings, classes)),
            validation_batch_size=EVALUATION_BATCH,
            callbacks=[new_order, *patience, ReportProgress(on_step, on_epoch), checkpoint],
            verbose=0,
        )
    model.train_function = None  # it holds the training images
    history = checkpoint.history
    history.used_epoch, history.mode = len(history.epochs), mode
    if settings.weights == "best":
        checkpoint.load_best(model)
        history.used_epoch = history.best_epoch(settings.checkpoint_monitor)
    return history


def build_loss(settings: Training) -> Any:
    """Returns Keras's loss for these settings."""
    import keras

    if settings.loss == "categorical_crossentropy":
        return keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy()


def encode_labels(labels: "np.ndarray", settings: Training, classes: int) -> "np.ndarray":
    """Returns what the loss needs: labels (n,), or one-hot float32 (n, classes) for categorical cross-entropy."""
    import keras

    return keras.utils.to_categorical(labels, classes) if settings.loss == "categorical_crossentropy" else labels


def predict(model: "keras.Model", images: "np.ndarray") -> "np.ndarray":
    """Returns the probabilities of all classes, float32 (n, classes)."""
    return model.predict(images, batch_size=EVALUATION_BATCH, verbose=0).astype("float32")


def check_accuracy(history: History, evaluations: Mapping[str, Evaluation]) -> None:
    """Compares the accuracy of each evaluation with that of Keras's metric, and `val` with the epoch that was used.

    Raises RuntimeError if one image is counted differently: weights, order or counting would be wrong.
    """
    import keras

    reported = []
    for name, evaluation in evaluations.items():
        right = keras.metrics.sparse_categorical_accuracy(evaluation.labels, evaluation.probabilities)
        reported.append((name, float(keras.ops.mean(right))))
    for name, accuracy in [*reported, ("val", history.epochs[history.used_epoch - 1]["val_accuracy"])]:
        ours, images = evaluations[name].accuracy, len(evaluations[name].labels)
        if abs(ours - accuracy) * images >= 0.5:
            raise RuntimeError(
                f"{name}: the confusion matrix gives an accuracy of {ours}, but Keras reports {accuracy}"
            )
