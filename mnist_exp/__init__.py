"""Experiment tracking and hyperparameter sweeps for image classifiers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import numpy as np
    from PIL import Image

    from mnist_exp.commands.predict import Prediction, Predictor
    from mnist_exp.experiment import Result

__all__ = ["load_model", "predict_digit", "run"]


def run(*overrides: str, data: Any = None, quiet: bool = False) -> "Result":
    """Trains, evaluates and records one run, as the command line does.

    overrides: such as "model=cnn". data: images and labels instead of a data set of the config: (images, labels), two
    such pairs for training and test, arrays named x_train, y_train, ..., or a tf.data pipeline; images are numbers from
    0 to 255 or from 0 to 1, (n, height, width[, channels]). quiet: print nothing. Raises a UserError
    (mnist_exp.errors) if the config, the data or the store cannot be used.
    """
    from mnist_exp.config.compose import compose
    from mnist_exp.data.arrays import GIVEN
    from mnist_exp.experiment import configure
    from mnist_exp.experiment import run as run_experiment
    from mnist_exp.terminal import RunDisplay

    config = configure(compose(overrides if data is None else (*GIVEN, *overrides)))
    if quiet:
        return run_experiment(config, data=data)
    display = RunDisplay()
    with display.cleared():
        result = run_experiment(config, display, data)
    display.show_result(result)
    return result


def load_model(run: str = "best") -> "keras.Model":
    """Returns the model of a run in the store of this folder.

    run: an id, a name, latest, best or models:/NAME@ALIAS. Raises TrackingError if there is no such run or model.
    """
    return _load_predictor(run).model


def predict_digit(image: "str | Path | Image.Image | np.ndarray", run: str = "best") -> "Prediction":
    """Returns what the model of a run answers about one image.

    image: a file, a Pillow image, or pixels 0-255 (height, width[, channels]). run: as for load_model. Raises DataError
    if it is not an image or shows nothing, TrackingError if there is no such run.
    """
    import numpy as np
    from PIL import Image

    from mnist_exp.data.images import read_image, to_8_bit

    if isinstance(image, str | Path):
        image = read_image(Path(image), str(image))
    elif isinstance(image, np.ndarray):
        image = Image.fromarray(image.squeeze())
    predictor = _load_predictor(run)
    tile = predictor.tile(to_8_bit(image, "the image").convert("RGBA"))
    return predictor.predict([tile])[0]


def _load_predictor(run: str) -> "Predictor":
    from mnist_exp.commands.predict import Predictor
    from mnist_exp.config.schema import Tracking
    from mnist_exp.tracking.store import connect_existing

    return Predictor.load(connect_existing(Tracking()), run)
