"""Models as MLflow stores them."""

from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

from mnist_exp.tracking.registry import write_model

layers = keras.layers


def functional() -> keras.Model:
    inputs = keras.Input((4, 4, 1), name="photo")
    return keras.Model(inputs, layers.Dense(3, "softmax")(layers.Flatten()(inputs)))


def sequential() -> keras.Model:
    return keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3, "softmax")])


def of_any_size() -> keras.Model:
    inputs = keras.Input((None, None, 1))
    return keras.Model(inputs, layers.Dense(3, "softmax")(layers.GlobalMaxPooling2D()(inputs)))


@pytest.mark.parametrize("make", [functional, sequential, of_any_size])
def test_mlflows_server_takes_images_whatever_the_net_calls_its_input(make, tmp_path: Path) -> None:
    model = make()
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), dtype=np.uint8)
    again = write_model(tmp_path / "model", model, {"class_names": ["a", "b", "c"]})
    answers = model.predict(images, verbose=0)
    np.testing.assert_allclose(again.predict(images, verbose=0), answers, atol=1e-6)
    np.testing.assert_allclose(mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(images), answers, atol=1e-6)
