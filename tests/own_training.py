"""Code of a user's own that tests name in configs: losses, metrics, callbacks, a schedule and an optimizer."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops


def focal(targets: Any, probabilities: Any, gamma: float = 2.0) -> Any:
    """One number for each image."""
    true = ops.sum(targets * probabilities, axis=-1)
    return -((1 - true) ** gamma) * ops.log(ops.maximum(true, 1e-7))


def make_focal(gamma: float) -> keras.losses.Loss:
    return keras.losses.CategoricalFocalCrossentropy(gamma=gamma)


def mean_focal(targets: Any, probabilities: Any) -> Any:
    """One number for all images."""
    return ops.mean(focal(targets, probabilities))


def per_class(targets: Any, probabilities: Any) -> Any:
    """One number for each class, which is no loss."""
    return ops.mean(ops.abs(targets - probabilities), axis=0)


class MeanFocal(keras.losses.Loss):
    def call(self, targets: Any, probabilities: Any) -> Any:
        return mean_focal(targets, probabilities)


def sparse_hinge(labels: Any, probabilities: Any) -> Any:
    true = ops.take_along_axis(probabilities, ops.cast(ops.reshape(labels, (-1, 1)), "int32"), axis=1)
    return ops.sum(ops.maximum(0.0, 0.5 + probabilities - true), axis=-1)


def surprise(targets: Any, probabilities: Any) -> Any:
    return ops.mean(ops.abs(targets - probabilities), axis=-1)


def hit(targets: Any, probabilities: Any) -> Any:
    return ops.equal(ops.argmax(targets, axis=-1), ops.argmax(probabilities, axis=-1))


def sparse_hit(labels: Any, probabilities: Any) -> Any:
    return hit(ops.one_hot(labels, 3), probabilities)


def staircase(step: Any, learning_rate: float, every: int = 20) -> Any:
    return learning_rate * 0.5 ** ops.floor(ops.cast(step, "float32") / every)


@keras.saving.register_keras_serializable("tests")
class Signs(keras.optimizers.Optimizer):
    """Steps of one size: the sign of each gradient."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * ops.sign(gradient))


class Speckle(keras.layers.Layer):
    """Sets a share of the pixels to 0."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.seeds = share, keras.random.SeedGenerator(0)

    def call(self, images: Any, training: bool = False) -> Any:
        drawn = keras.random.uniform(ops.shape(images), seed=self.seeds)
        return ops.where(drawn < self.share, 0.0, images) if training else images


class Listed(keras.layers.Layer):
    """Draws with generators in a list and in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = [keras.random.SeedGenerator(), keras.random.SeedGenerator()]
        self.more = {"noise": keras.random.SeedGenerator()}

    def call(self, images: Any, training: bool = False) -> Any:
        drawn = [keras.random.uniform(ops.shape(images), seed=seed) for seed in (*self.seeds, self.more["noise"])]
        return images * sum(drawn)


class Wild(keras.layers.Layer):
    """Draws with what Keras knows nothing of."""

    def call(self, images: Any, training: bool = False) -> Any:
        return images * tf.random.uniform(tf.shape(images))


def noise(images: Any) -> Any:
    return images * keras.random.uniform(ops.shape(images))


def invert(images: Any) -> Any:
    return 255.0 - images


def mixing_net() -> keras.layers.Layer:
    return keras.Sequential([keras.layers.RandomFlip(), keras.layers.CutMix()])


def crop(images: Any) -> Any:
    return images[:, 1:, 1:]


class Remembering(keras.callbacks.Callback):
    """Halves the learning rate after every second epoch, and can be asked how many it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seen += 1
        if self.seen % 2 == 0:
            optimizer = self.model.optimizer
            optimizer.learning_rate = ops.convert_to_numpy(optimizer.learning_rate) / 2

    def get_state(self) -> dict[str, int]:
        return {"seen": self.seen}

    def set_state(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]


class Forgetting(Remembering):
    """The same, but cannot be asked."""

    get_state = None  # type: ignore[assignment]


class Unprintable(Remembering):
    """Remembers what JSON cannot hold."""

    def get_state(self) -> Any:
        return {"seen": object()}


class CountBatches(keras.callbacks.Callback):
    """Hears of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.batches += 1


class Blend(keras.callbacks.Callback):
    """Leaves the mean of the first and the last weights, which are those of no epoch."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.first = self.model.get_weights()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.model.set_weights([(a + b) / 2 for a, b in zip(self.first, self.model.get_weights(), strict=True)])


class FreezesAtFirst(keras.callbacks.Callback):
    def on_train_begin(self, logs: Any = None) -> None:
        next(layer for layer in self.model.layers if layer.weights).trainable = False


class SetsBeta(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.optimizer.beta_1 = 0.1


class StopsAfter(keras.callbacks.Callback):
    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch + 1 == self.epochs:
            self.model.stop_training = True


class HalvesAtTheEnd(keras.callbacks.Callback):
    def on_train_end(self, logs: Any = None) -> None:
        for weight in self.model.trainable_weights:
            weight.assign(weight / 2)
