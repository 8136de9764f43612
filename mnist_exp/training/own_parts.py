"""Checks a loss and metrics of the user's own before a training, on answers that are made up."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import global_state

from mnist_exp.config.schema import Training
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.training.build import build_loss, build_metrics
from mnist_exp.training.evaluate import encode_labels
from mnist_exp.training.losses import FunctionLoss


def check_loss(settings: Training, classes: int) -> None:
    """Raises ConfigError unless a loss of the user's returns one number for each image, or for all.

    One for all images cannot be weighted by class. An error in the loss's own code arrives as it was raised.
    """
    if not isinstance(settings.loss, dict):
        return
    loss, images = build_loss(settings), 5 if classes != 5 else 7  # not the classes, with which it could be confused
    targets = ops.convert_to_tensor(encode_labels(np.arange(images) % classes, loss, classes))
    probabilities = ops.full((images, classes), 1 / classes)
    compare = loss.function if isinstance(loss, FunctionLoss) else loss.call
    shape = tuple(ops.shape(ops.convert_to_tensor(compare(targets, probabilities))))
    if not shape and settings.class_weight is not None:
        remedy = "leave out the mean over the images, or training.class_weight"
        rule = "must return one number for each image, which training.class_weight weighs, but returned one for all"
        raise ConfigError(Problem("training.loss", rule, remedy=remedy))
    if shape not in ((), (images,), (images, 1)):
        rule = f"must return one number for each image, but for {images} images and {classes} classes returned an array"
        remedy = "sum or average over the last axis only"
        raise ConfigError(Problem("training.loss", f"{rule} of shape {shape}", remedy=remedy))


def check_metrics(settings: Training, classes: int) -> None:
    """Raises ConfigError for a metric that gives an array. An error in its own code arrives as it was raised."""
    if not settings.metrics:
        return
    targets = encode_labels(np.arange(classes), build_loss(settings), classes)
    probabilities = ops.full((classes, classes), 1 / classes)
    with _same_names():
        metrics = build_metrics(settings)
    for place, metric in enumerate(metrics):
        metric.update_state(ops.convert_to_tensor(targets), probabilities)
        for value in keras.tree.flatten(metric.result()):  # a metric may give several numbers by name
            if shape := tuple(ops.shape(value)):
                rule = f"must give one number, but {metric.name} gives an array of shape {shape}"
                remedy = "average over the classes, as average:macro does for F1Score"
                raise ConfigError(Problem(f"training.metrics[{place}]", rule, remedy=remedy))


@contextmanager
def _same_names() -> Iterator[None]:
    """Lets Keras give the names of this block again: the metrics of the training are not auc_1 and precision_1."""
    before = dict(global_state.get_global_attribute("object_name_uids") or {})
    try:
        yield
    finally:
        after = global_state.get_global_attribute("object_name_uids")
        if after is not None:
            after.clear()
            after.update(before)
