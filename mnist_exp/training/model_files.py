"""Writes a model as Keras file, HDF5 or SavedModel, reads it again and compares the answers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mnist_exp.config.own_code import find_own_objects
from mnist_exp.errors import Problem, TrainingError

if TYPE_CHECKING:
    import keras

Format = Literal["keras", "h5", "savedmodel"]
Answer = Callable[[np.ndarray], np.ndarray]  # images, uint8 (n, height, width, channels) -> probabilities (n, classes)

# The largest difference of a probability that rounding explains. Keras's files are read into the same layers with the
# same weights; a SavedModel is another graph, which may add in another order.
TOLERANCE: dict[Format, float] = {"keras": 1e-6, "h5": 1e-6, "savedmodel": 1e-5}


@dataclass(frozen=True)
class Export:
    """A written model. largest: the largest difference of a probability on this number of images."""

    path: Path
    largest: float
    images: int


def export(model: "keras.Model", kind: Format, path: Path, images: np.ndarray) -> Export:
    """Writes the model and reads it again. images: uint8 (n, height, width, channels), to compare the answers.

    A file of Keras removes the optimizer from the model. Raises TrainingError if what was written answers differently.
    """
    expected = model.predict(images, verbose=0)
    answers = WRITERS[kind](model, path)(images)
    largest = float(np.abs(answers - expected).max())
    if not largest <= TOLERANCE[kind] or (answers.argmax(1) != expected.argmax(1)).any():
        rule = f"must answer like the model, with probabilities within {TOLERANCE[kind]:g}"
        raise TrainingError(Problem(str(path), rule, largest))
    return Export(path, largest, len(images))


def _write_file(model: "keras.Model", path: Path) -> Answer:
    import keras

    model.save(path)
    again = keras.models.load_model(path, custom_objects=find_own_objects(model), compile=False)
    return lambda images: again.predict(images, verbose=0)


def _write_saved_model(model: "keras.Model", path: Path) -> Answer:
    import tensorflow as tf

    model.export(path, verbose=False)
    again = tf.saved_model.load(str(path))
    return lambda images: again.serve(images.astype("float32")).numpy()


WRITERS: dict[Format, Callable[["keras.Model", Path], Answer]] = {
    "keras": _write_file, "h5": _write_file, "savedmodel": _write_saved_model
}  # fmt: skip
