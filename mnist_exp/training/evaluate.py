"""Evaluates a model, and compares its accuracy with the one that Keras reports."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_exp.data.dataset import ImageSet
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.training.build import takes_integers

if TYPE_CHECKING:
    import keras

EVALUATION_BATCH = 500  # images: large enough for full speed, small enough for the memory that any net needs


def encode_labels(labels: np.ndarray, loss: "keras.losses.Loss", classes: int) -> np.ndarray:
    """Returns what the loss compares with: labels (n,), or one-hot ones, float32 (n, classes)."""
    import keras

    return labels if takes_integers(loss) else keras.utils.to_categorical(labels, classes).astype(np.float32)


def evaluate(model: "keras.Model", part: ImageSet, class_names: tuple[str, ...]) -> Evaluation:
    """Returns the answers of a model for these images, with the loss that Keras's `evaluate` reports.

    A model that is not compiled, such as a stored one whose loss is the user's own, has no loss.
    """
    import tensorflow as tf

    compiled = model.compiled

    @tf.function(jit_compile=compiled and model.jit_compile, reduce_retracing=True, autograph=False)
    def answer(images: tf.Tensor, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = model(images, training=False)
        found = {"probabilities": probabilities}
        if compiled:
            found["loss"] = model.compute_loss(images, targets, probabilities, training=False)
        if (logits := logits_of(probabilities)) is not None:
            found["logits"] = logits
        return found

    targets = encode_labels(part.labels, model.loss, len(class_names)) if compiled else part.labels
    starts = range(0, len(part), EVALUATION_BATCH)
    parts = [slice(start, start + EVALUATION_BATCH) for start in starts]
    answers = [answer(tf.constant(part.images[one]), tf.constant(targets[one])) for one in parts]
    arrays = {
        name: np.concatenate([np.asarray(one[name], np.float32) for one in answers])
        for name in answers[0].keys() - {"loss"}
    }
    loss = None
    if compiled:
        sizes = [len(part.labels[one]) for one in parts]
        loss = float(np.average([float(one["loss"]) for one in answers], weights=sizes))
    return Evaluation(part.labels, class_names=class_names, loss=loss, **arrays)


def logits_of(probabilities: Any) -> Any:
    """Returns the input of the softmax that made these probabilities, as Keras's losses do; None if none did."""
    return getattr(probabilities, "_keras_logits", None)


def check_accuracy(history: History, evaluations: Mapping[str, Evaluation]) -> None:
    """Compares the accuracy of each evaluation with that of Keras's metric, and `val` with the epoch that was used.

    Weights that are those of no epoch, such as averages, have none to be compared with.

    Raises RuntimeError if one image is counted differently: weights, order or counting would be wrong.
    """
    import keras

    reported = []
    for name, evaluation in evaluations.items():
        right = keras.metrics.sparse_categorical_accuracy(evaluation.labels, evaluation.probabilities)
        reported.append((name, float(keras.ops.mean(right))))
    if history.is_of_epoch:
        reported.append(("val", history.used["val_accuracy"]))
    for name, accuracy in reported:
        ours, images = evaluations[name].accuracy, len(evaluations[name].labels)
        if abs(ours - accuracy) * images >= 0.5:
            raise RuntimeError(
                f"{name}: the confusion matrix gives an accuracy of {ours}, but Keras reports {accuracy}"
            )
