"""Writes a stored model in another format, and checks that it still says the same."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnist_exp.errors import TrainingError

if TYPE_CHECKING:
    import keras


from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import keras

Format = Literal["h5", "savedmodel"]
CLOSE = 1e-5  # the largest difference of a probability that rounding explains


@dataclass(frozen=True)
class Export:
    """A file or folder that answers as the model does; largest: difference of a probability on so many images."""

    path: Path
    largest: float
    images: int


def export(model: "keras.Model", kind: Format, path: Path, images: np.ndarray) -> Export:
    """Writes the model and reads it again; images: uint8 (n, height, width, channels), for the check.

    Raises TrainingError where what was written answers otherwise.
    """
    expected = model.predict(images, verbose=0)
    answers = WRITERS[kind](model, path)(images)
    largest = float(np.abs(answers - expected).max())
    if not largest <= CLOSE or (answers.argmax(1) != expected.argmax(1)).any():
        raise TrainingError(f"{path} must answer as the model does, but probabilities differ by {largest:.2g}")
    return Export(path, largest, len(images))


def _h5(model: "keras.Model", path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import keras

    model.save(path)
    again = keras.models.load_model(path, compile=False)
    return lambda images: again.predict(images, verbose=0)


def _saved_model(model: "keras.Model", path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    model.export(path, verbose=False)
    again = tf.saved_model.load(str(path))
    return lambda images: again.serve(images.astype("float32")).numpy()


WRITERS: dict[Format, Callable[["keras.Model", Path], Callable[[np.ndarray], np.ndarray]]] = {
    "h5": _h5,
    "savedmodel": _saved_model,
}


def write_h5(path: Path, model: "keras.Model", images: np.ndarray) -> None:
    """The model as classic HDF5, read again. Raises TrainingError where it does not answer as before.

    Keras drops the optimizer from the live model on the way, so this comes after the model was kept.
    """
    import keras

    model.save(path)
    again = keras.models.load_model(path, compile=False)
    difference = float(np.abs(again.predict(images, verbose=0) - model.predict(images, verbose=0)).max())
    if not difference <= 1e-6:
        raise TrainingError(f"{path.name} must answer like the trained model, but probabilities differ by {difference}")
