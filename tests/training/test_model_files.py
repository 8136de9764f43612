import keras
import numpy as np
import pytest

from mnist_exp.errors import TrainingError
from mnist_exp.training import model_files


def test_a_file_that_answers_otherwise_is_refused(tmp_path, monkeypatch) -> None:
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    monkeypatch.setitem(model_files.WRITERS, "h5", lambda model, path: lambda images: 1 - model.predict(images))
    with pytest.raises(TrainingError, match="must answer like the model"):
        model_files.export(model, "h5", tmp_path / "x.h5", np.arange(40).reshape(10, 2, 2, 1))
