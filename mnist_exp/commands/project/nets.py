"""Nets of this project: functions of the shape of an image and the number of classes that return a Keras model."""

import keras
from keras import layers


def wide(image_shape: tuple[int, int, int], classes: int, *, units: int, dropout: float) -> keras.Model:
    """One wide layer. Pixels are 0-255, so the first layer rescales them; the last one is a softmax."""
    pixels = keras.Input(image_shape)
    x = layers.Rescaling(1 / 255)(pixels)
    x = layers.Flatten()(x)
    x = layers.Dense(units, activation="relu")(x)
    x = layers.Dropout(dropout)(x)
    return keras.Model(pixels, layers.Dense(classes, activation="softmax")(x))
