"""Many batches in one call of TensorFlow: the compiled epoch.

`model.fit` returns to Python after every batch. For a small network that takes longer than the batch. Here the data is
in memory as tensors, and one compiled function runs `model.train_step` on many batches; it only gets their order.
`fit` keeps a `train_function` that is already set, so callbacks and validation work as usual.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv
from keras.src.trainers.trainer import model_supports_jit
from tensorflow.python.framework.config import is_op_determinism_enabled

Mode = Literal["xla", "windows", "off"]

# Batches per call without XLA: enough to save time in Python, few enough for progress and Ctrl-C.
WINDOW = 20


class BatchOrder:
    """The order of the training images: one permutation per epoch, drawn from (seed, epoch), also when resumed."""

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draws the permutation of this epoch."""
        self.permutation = np.random.default_rng([self.seed, epoch]).permutation(self.images).astype(np.int32)

    @property
    def batches(self) -> int:
        """The number of batches per epoch, including a short last one."""
        return -(-self.images // self.batch_size)

    def windows(self, size: int | None) -> list[tuple[int, int]]:
        """Returns the first and the last (exclusive) batch of each window of `size` batches; None: all full batches."""
        full = self.images // self.batch_size
        size = size or full or 1
        starts = [(start, min(start + size, full)) for start in range(0, full, size)]
        return starts + [(full, full + 1)] * (self.batches > full)

    def window(self, first: int, last: int) -> np.ndarray:
        """Returns the images of these batches: int32 (batches, batch_size). A short last batch is alone."""
        chosen = self.permutation[first * self.batch_size : last * self.batch_size]
        return chosen.reshape(last - first, -1)


class _Batches(keras.utils.PyDataset):
    """One batch at a time for Keras, in the same order."""

    def __init__(self, images: np.ndarray, targets: np.ndarray, order: BatchOrder) -> None:
        super().__init__()
        self.images, self.targets, self.order = images, targets, order

    def __len__(self) -> int:
        return self.order.batches

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        (chosen,) = self.order.window(number, number + 1)
        return self.images[chosen], self.targets[chosen]


def choose_mode(model: keras.Model, wanted: Literal["auto", "on", "off"]) -> Mode:
    """Returns how to run an epoch: the whole epoch with XLA, windows without XLA, or single batches.

    XLA makes dense networks about 10 times faster, and convolutions on a CPU 3 times slower. `model_supports_jit` is
    false for layers that it cannot compile, and if TensorFlow's operations must be deterministic.
    """
    if wanted == "off":
        return "off"
    if not model_supports_jit(model):
        return "windows"
    on_cpu = not tf.config.list_physical_devices("GPU")
    convolutions = any(isinstance(layer, BaseConv | BaseDepthwiseConv) for layer in model._flatten_layers())
    return "windows" if wanted == "auto" and on_cpu and convolutions else "xla"


def prepare_fit(
    model: keras.Model, images: np.ndarray, targets: np.ndarray, order: BatchOrder, mode: Mode
) -> tuple[Any, keras.callbacks.Callback]:
    """Returns the `x` and the first callback that `fit` needs to train a compiled model in this mode.

    images: (n, height, width, channels); targets: (n,) labels or (n, classes) one-hot.
    """
    new_order = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: order.begin(epoch))
    if mode == "off":
        model.train_function = None
        return _Batches(images, targets, order), new_order
    windows = order.windows(None if mode == "xla" else WINDOW)
    _create_variables(model, images[:1], targets[:1])
    run, data, wanted = _compile_windows(model, mode), tf.constant(images), tf.constant(targets)

    def train_function(iterator: Any) -> dict[str, Any]:
        return run(tf.constant(order.window(*windows[int(next(iterator))])), data, wanted)

    model.train_function = train_function
    return tf.data.Dataset.range(len(windows)), new_order


def _create_variables(model: keras.Model, images: np.ndarray, targets: np.ndarray) -> None:
    """Creates the variables of optimizer and metrics now, because creating them in a trace causes a second trace."""
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(images, targets, model(images, training=False))
    model.reset_metrics()


def _compile_windows(model: keras.Model, mode: Mode) -> Callable[..., dict[str, Any]]:
    # The data are arguments, because TensorFlow keeps a traced graph together with all that it captures.
    @tf.function(jit_compile=mode == "xla", autograph=False)
    def run(order: tf.Tensor, data: tf.Tensor, wanted: tf.Tensor) -> dict[str, Any]:
        def step(number: tf.Tensor) -> tf.Tensor:
            chosen = tf.gather(order, number)
            model.train_step((tf.gather(data, chosen), tf.gather(wanted, chosen)))
            return number + 1

        with _traced_for(model, mode):
            tf.while_loop(lambda number: number < order.shape[0], step, [0])
        return model.get_metrics_result()

    return run


def _traced_for(model: keras.Model, mode: Mode) -> AbstractContextManager[None]:
    """Returns a context in which a model is traced so that it runs faster and computes the same."""
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
