"""How an epoch runs: as one call of XLA, in windows of batches without XLA, or batch by batch with `model.fit`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Literal

import keras
import tensorflow as tf
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv
from keras.src.trainers.trainer import model_supports_jit
from tensorflow.python.framework.config import is_op_determinism_enabled

from mnist_exp.training.augmentation import attached_to

Mode = Literal["xla", "windows", "off"]

# Batches per call: few enough for progress and Ctrl-C, enough to save time in Python.
WINDOW: dict[Mode, int] = {"xla": 2000, "windows": 20}


def choose_mode(model: keras.Model, wanted: Literal["auto", "on", "off"]) -> Mode:
    """Returns how to run an epoch.

    XLA makes dense networks about 10 times faster, and convolutions on a CPU 3 times slower.
    """
    if wanted == "off":
        return "off"
    if not supports_xla(model):
        return "windows"
    on_cpu = not tf.config.list_physical_devices("GPU")
    convolutions = any(isinstance(layer, BaseConv | BaseDepthwiseConv) for layer in model._flatten_layers())
    return "windows" if wanted == "auto" and on_cpu and convolutions else "xla"


def supports_xla(model: keras.Model) -> bool:
    """Whether XLA can compile a training step: every layer, and those of an augmentation.

    It cannot if TensorFlow's operations must be deterministic.
    """
    augmentation = attached_to(model)
    outside = augmentation.all_layers if augmentation else []
    return model_supports_jit(model) and all(layer.supports_jit for layer in outside)


def traced_for(model: keras.Model, mode: Mode) -> AbstractContextManager[None]:
    """Returns a context in which a training step is traced so that it runs faster and computes the same."""
    if mode == "xla":
        return _named_generator()
    return nullcontext() if is_op_determinism_enabled() else _compiled_update(model.optimizer)


@contextmanager
def _named_generator() -> Iterator[None]:
    """Names the generator of dropout masks in what is traced in this context.

    TensorFlow would choose Philox, too, so the numbers are the same. But if it is named, XLA on a CPU draws them with
    one instruction: a dense network with dropout trains 6 times faster.
    """
    plain = tf.nn.experimental.stateless_dropout
    tf.nn.experimental.stateless_dropout = partial(plain, rng_alg="philox")
    try:
        yield
    finally:
        tf.nn.experimental.stateless_dropout = plain


@contextmanager
def _compiled_update(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Updates the weights in an XLA call of its own in what is traced in this context.

    An update takes a dozen passes over every weight, and only one with XLA. That saves a third of the step of a
    network with a large dense layer. There is no convolution in it, which XLA would make slower.
    """
    plain = optimizer.apply

    def apply(gradients: list[tf.Tensor], variables: list[keras.Variable]) -> None:
        tf.function(lambda gradients: plain(gradients, variables), jit_compile=True, autograph=False)(gradients)

    optimizer.apply = apply
    try:
        yield
    finally:
        del optimizer.apply
