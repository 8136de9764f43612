"""The sizes of a net that are known before it is trained."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

MB = 1e6
COPIES = 4  # of the weights in a training: themselves, their gradients, and two slots of the optimizer


def sizes_of(model: "keras.Model", batch_size: int) -> dict[str, float]:
    """Returns `parameters`, `size`, the MB of the weights, and `memory`, about the MB that a training step needs.

    A training step keeps the answers of all layers for a batch, and their gradients.
    """
    weights = sum(math.prod(one.shape) * _bytes(one.dtype) for one in model.weights)
    layers = [layer for layer in model._flatten_layers(include_self=False) if not hasattr(layer, "layers")]
    answers = sum(
        math.prod(side for side in tensor.shape[1:] if side) * _bytes(tensor.dtype)
        for layer in layers
        for node in layer._inbound_nodes[:1]
        for tensor in node.output_tensors
    )
    memory = COPIES * weights + 2 * batch_size * answers
    return {"parameters": float(model.count_params()), "size": weights / MB, "memory": memory / MB}


def _bytes(dtype: str) -> int:
    """The bytes of a number of this type, such as float32."""
    import numpy as np

    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
