"""Losses beside those of Keras."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from mnist_exp.config.schema import Training
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.training.build import build_loss
from mnist_exp.training.evaluate import encode_labels


class FunctionLoss(keras.losses.Loss):
    """A plain function of targets and probabilities. It returns one number for each image, or for all."""

    def __init__(self, function: Callable[[Any, Any], Any], name: str) -> None:
        super().__init__(name=name)
        self.function = function

    def call(self, targets: Any, probabilities: Any) -> Any:
        found = ops.convert_to_tensor(self.function(targets, probabilities))
        images = ops.shape(probabilities)[0]
        return ops.broadcast_to(found, (images,)) if len(found.shape) == 0 else found


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
