"""Experiment tracking and hyperparameter sweeps for image classifiers."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from mnist_exp.commands.predict import Prediction
    from mnist_exp.experiment import Result

__all__ = ["predict_digit", "run"]


def run(*overrides: str, quiet: bool = False) -> "Result":
    """Composes a config from overrides such as "model=cnn", trains, evaluates and records it, as the command line does.

    Raises a UserError (mnist_exp.errors) where a config, data or store cannot be used. quiet: print nothing.
    """
    from mnist_exp.config.compose import compose
    from mnist_exp.config.resume import continued
    from mnist_exp.experiment import run as run_experiment
    from mnist_exp.terminal import Terminal

    cfg, choices = continued(*compose(overrides), overrides)
    if quiet:
        return run_experiment(cfg, choices)
    terminal = Terminal()
    with terminal.cleared():
        result = run_experiment(cfg, choices, terminal)
    terminal.result(result)
    return result


def predict_digit(image: "str | Path | Image.Image | np.ndarray", run: str = "best") -> "Prediction":
    """Returns what the model of a run predicts for one image.

    image: a file, a Pillow image, or pixels 0-255 (height, width[, channels]).
    run: an id, a name, latest, best or models:/NAME@ALIAS, in the store of this folder.
    Raises DataError if it is not an image or shows nothing, TrackingError if there is no such run.
    """
    import numpy as np
    from PIL import Image

    from mnist_exp.commands.predict import Predictor
    from mnist_exp.config.schema import Tracking
    from mnist_exp.data.images import eight_bits, read_image
    from mnist_exp.tracking.store import connect_existing

    if isinstance(image, str | Path):
        image = read_image(Path(image), str(image))
    elif isinstance(image, np.ndarray):
        image = Image.fromarray(image.squeeze())
    store = connect_existing(Tracking(enabled=True, uri=None, experiment="", folder="mlruns"))
    predictor = Predictor.load(store, run)
    tile = predictor.tile(eight_bits(image, "the image").convert("RGBA"))
    return predictor.predict([tile])[0]
