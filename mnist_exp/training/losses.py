"""Losses beside those of Keras."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


class FunctionLoss(keras.losses.Loss):
    """A plain function of targets and probabilities. It returns one number for each image, or for all."""

    def __init__(self, function: Callable[[Any, Any], Any], name: str) -> None:
        super().__init__(name=name)
        self.function = function

    def call(self, targets: Any, probabilities: Any) -> Any:
        found = ops.convert_to_tensor(self.function(targets, probabilities))
        images = ops.shape(probabilities)[0]
        return ops.broadcast_to(found, (images,)) if len(found.shape) == 0 else found
