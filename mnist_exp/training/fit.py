"""Fits a model, evaluates it, and compares its accuracy with the one that Keras reports."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_exp.config.schema import Training
from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.splits import Splits, sample
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation

if TYPE_CHECKING:
    import keras

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
    train, validation = sample(splits.train, settings.images_used(len(splits.train)), seed), splits.validation
    metrics, name_metrics = cross_entropy_per_epoch(model, settings, train.images[:1])
    model.compile(optimizer, build_loss(settings), metrics=["accuracy", *metrics], jit_compile=jit_compile)
    order = BatchOrder(len(train), settings.batch_size, seed)
    classes = len(splits.class_names)
    targets = encode_labels(train.labels, model.loss, classes)
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
            validation_data=(validation.images, encode_labels(validation.labels, model.loss, classes)),
            validation_batch_size=EVALUATION_BATCH,
            callbacks=[new_order, *name_metrics, *patience, ReportProgress(on_step, on_epoch), checkpoint],
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


def cross_entropy_per_epoch(
    model: "keras.Model", settings: Training, image: np.ndarray
) -> tuple[list["keras.metrics.Metric"], list["keras.callbacks.Callback"]]:
    """Returns the metrics and callbacks with which Keras reports `val_cross_entropy` after every epoch.

    If the loss is the cross-entropy itself, it gets this name, too, which takes no time. Else, with label smoothing or
    penalties of weights, it is a metric of its own. A net that does not end with a softmax gets none, because Keras
    clips its probabilities. image: (1, height, width, channels).
    """
    import keras

    if _logits_of(model(image, training=False)) is None:
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


def encode_labels(labels: np.ndarray, loss: "keras.losses.Loss", classes: int) -> np.ndarray:
    """Returns what the loss needs: labels (n,), or one-hot float32 (n, classes) for categorical cross-entropy."""
    import keras

    one_hot = isinstance(loss, keras.losses.CategoricalCrossentropy)
    return keras.utils.to_categorical(labels, classes) if one_hot else labels


def evaluate(model: "keras.Model", part: ImageSet, class_names: tuple[str, ...]) -> Evaluation:
    """Returns the answers of a compiled model for these images, with the loss that Keras's `evaluate` reports."""
    import tensorflow as tf

    @tf.function(jit_compile=model.jit_compile, reduce_retracing=True, autograph=False)
    def answer(images: tf.Tensor, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = model(images, training=False)
        loss = model.compute_loss(images, targets, probabilities, training=False)
        logits = _logits_of(probabilities)
        return {"probabilities": probabilities, "loss": loss, **({} if logits is None else {"logits": logits})}

    targets = encode_labels(part.labels, model.loss, len(class_names))
    starts = range(0, len(part), EVALUATION_BATCH)
    parts = [slice(start, start + EVALUATION_BATCH) for start in starts]
    answers = [answer(tf.constant(part.images[one]), tf.constant(targets[one])) for one in parts]
    arrays = {
        name: np.concatenate([np.asarray(one[name], np.float32) for one in answers])
        for name in answers[0].keys() - {"loss"}
    }
    losses, sizes = [float(one["loss"]) for one in answers], [len(part.labels[one]) for one in parts]
    loss = float(np.average(losses, weights=sizes))
    return Evaluation(part.labels, class_names=class_names, loss=loss, **arrays)


def _logits_of(probabilities: Any) -> Any:
    """Returns the input of the softmax that made these probabilities, as Keras's losses do; None if none did."""
    return getattr(probabilities, "_keras_logits", None)


def check_accuracy(history: History, evaluations: Mapping[str, Evaluation]) -> None:
    """Compares the accuracy of each evaluation with that of Keras's metric, and `val` with the epoch that was used.

    Raises RuntimeError if one image is counted differently: weights, order or counting would be wrong.
    """
    import keras

    reported = []
    for name, evaluation in evaluations.items():
        right = keras.metrics.sparse_categorical_accuracy(evaluation.labels, evaluation.probabilities)
        reported.append((name, float(keras.ops.mean(right))))
    for name, accuracy in [*reported, ("val", history.used["val_accuracy"])]:
        ours, images = evaluations[name].accuracy, len(evaluations[name].labels)
        if abs(ours - accuracy) * images >= 0.5:
            raise RuntimeError(
                f"{name}: the confusion matrix gives an accuracy of {ours}, but Keras reports {accuracy}"
            )
