"""Networks as plain functions: (image_shape, classes, **keys) -> an uncompiled keras.Model.

Every network takes raw pixels, 0-255, of shape (height, width, channels), rescales them in its first layer and ends in
a softmax over the classes, so that a saved model needs no other code. Call a network that augments as model.predict(x)
or model(x, training=False), because Keras's random layers are also active in model(x).
"""

from typing import TYPE_CHECKING, Any, Literal

from mnist_exp.config.schema import Augmentation, Count, OptionalPath, Share
from mnist_exp.errors import ConfigError, Problem

if TYPE_CHECKING:
    import keras

ImageShape = tuple[int, int, int]
Activation = Literal["relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu"]


def mlp(
    image_shape: ImageShape,
    classes: int,
    *,
    widths: list[Count],
    activation: Activation,
    dropout: Share,
    batch_norm: bool,
    augmentation: Augmentation | None = None,
) -> "keras.Model":
    """A dense network with one hidden layer for each of `widths`. Without any it is a logistic regression."""
    from keras import layers

    inputs, x = _pixels(image_shape, augmentation)
    x = layers.Flatten()(x)
    x = _dense(x, widths, activation, dropout, batch_norm)
    return _classifier(inputs, x, classes, "mlp")


def cnn(
    image_shape: ImageShape,
    classes: int,
    *,
    blocks: list[list[Count]],
    kernel: Count,
    padding: Literal["valid", "same"],
    pooling: Count,
    block_dropout: Share,
    dense: list[Count],
    dense_dropout: Share,
    activation: Activation,
    batch_norm: bool,
    augmentation: Augmentation | None = None,
) -> "keras.Model":
    """A convolutional network: blocks of convolutions, each followed by max-pooling, then dense layers.

    Raises ConfigError if the blocks would leave no pixel of the image.
    """
    from keras import layers

    _check_depth(image_shape, blocks, kernel if padding == "valid" else 1, pooling)
    inputs, x = _pixels(image_shape, augmentation)
    for filters_of_block in blocks:
        for filters in filters_of_block:
            x = layers.Conv2D(filters, kernel, padding=padding, use_bias=not batch_norm)(x)
            x = _activate(x, activation, batch_norm)
        x = layers.MaxPooling2D(pooling)(x)
        if block_dropout:
            x = layers.Dropout(block_dropout)(x)
    x = layers.Flatten()(x)
    x = _dense(x, dense, activation, dense_dropout, batch_norm)
    return _classifier(inputs, x, classes, "cnn")


def resnet(
    image_shape: ImageShape,
    classes: int,
    *,
    stem: Count,
    stages: list[Count],
    depth: Count,
    dropout: Share,
    augmentation: Augmentation | None = None,
) -> "keras.Model":
    """A small residual network (He et al. 2015): a stem at full size, then stages that halve the image.

    Raises ConfigError if the stages would leave no pixel of the image.
    """
    from keras import layers

    if min(image_shape[:2]) < 2 ** len(stages):
        height, width, _ = image_shape
        most = min(height, width).bit_length() - 1
        rule = f"must have at most {most} stages for {height}x{width} pixels, because each halves the image"
        raise ConfigError(Problem("model.stages", rule, stages))
    inputs, x = _pixels(image_shape, augmentation)
    x = layers.Activation("relu")(_normed_convolution(x, stem))
    for filters in stages:
        for block in range(depth):
            x = _residual(x, filters, strides=2 if block == 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    return _classifier(inputs, x, classes, "resnet")


def pretrained(
    image_shape: ImageShape,
    classes: int,
    *,
    backbone: str,
    weights: OptionalPath,
    size: Count | None,
    dense: list[Count],
    dropout: Share,
    activation: Activation,
) -> "keras.Model":
    """A net of keras.applications, frozen, and dense layers on its features.

    It is made of two nets, `features` and `head`. Raises ConfigError for a net, a size or weights that cannot be used.
    """
    from keras import Input, Model, layers

    from mnist_exp.models.backbones import build_features

    features = build_features(image_shape, backbone, weights, size)
    vector = Input(features.output_shape[1:], name="vector")
    x = layers.Dropout(dropout)(vector) if dropout else vector
    head = _classifier(vector, _dense(x, dense, activation, dropout, batch_norm=False), classes, "head")
    inputs = Input(image_shape, name="pixels")
    return Model(inputs, head(features(inputs)), name="pretrained")


def _pixels(image_shape: ImageShape, augmentation: Augmentation | None) -> tuple[Any, Any]:
    """Returns the input and its pixels, rescaled. augmentation: of a config of version 0.1, which acts in training."""
    from keras import Input, layers

    # training.precision is too low for positions in an image, and for probabilities.
    kept = {"fill_mode": "constant", "dtype": "float32"}
    inputs = Input(image_shape, name="pixels")
    x = layers.Rescaling(1 / 255, dtype="float32")(inputs)
    changes = augmentation or {}
    if share := changes.get("translation"):
        # Whole pixels, because each interpolation blurs, and the layers that follow interpolate.
        x = layers.RandomTranslation(share, share, interpolation="nearest", **kept)(x)
    if share := changes.get("rotation"):
        x = layers.RandomRotation(share, **kept)(x)
    if share := changes.get("zoom"):
        x = layers.RandomZoom((-share, share), (-share, share), **kept)(x)
    return inputs, x


def _dense(x: Any, widths: list[int], activation: str, dropout: float, batch_norm: bool) -> Any:
    from keras import layers

    for width in widths:
        x = _activate(layers.Dense(width, use_bias=not batch_norm)(x), activation, batch_norm)
        if dropout:
            x = layers.Dropout(dropout)(x)
    return x


def _activate(x: Any, activation: str, batch_norm: bool) -> Any:
    from keras import layers

    if batch_norm:
        x = layers.BatchNormalization()(x)
    return layers.Activation(activation)(x)


def _normed_convolution(x: Any, filters: int, kernel: int = 3, strides: int = 1) -> Any:
    from keras import layers

    convolution = layers.Conv2D(
        filters, kernel, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal"
    )
    return layers.BatchNormalization()(convolution(x))


def _residual(x: Any, filters: int, strides: int) -> Any:
    from keras import layers

    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = _normed_convolution(x, filters, kernel=1, strides=strides)
    x = layers.Activation("relu")(_normed_convolution(x, filters, strides=strides))
    x = _normed_convolution(x, filters)
    return layers.Activation("relu")(layers.Add()([shortcut, x]))


def _classifier(inputs: Any, x: Any, classes: int, name: str) -> "keras.Model":
    from keras import Model, layers

    output = layers.Dense(classes, activation="softmax", name="probabilities", dtype="float32")
    return Model(inputs, output(x), name=name)


def _check_depth(image_shape: ImageShape, blocks: list[list[int]], kernel: int, pooling: int) -> None:
    sides = [min(image_shape[:2])]
    for number, filters_of_block in enumerate(blocks, 1):
        sides.append(max(0, sides[-1] - len(filters_of_block) * (kernel - 1)) // pooling)
        if sides[-1] < 1:
            smaller = ", a smaller model.kernel, model.padding=same" if kernel > 1 else ""
            shrinking = " -> ".join(map(str, sides))
            rule = f"must leave at least one pixel, but block {number} leaves none (shorter side: {shrinking})"
            remedy = f"use fewer blocks{smaller} or a smaller model.pooling"
            raise ConfigError(Problem("model.blocks", rule, blocks, remedy))
