"""Experiment tracking and hyperparameter sweeps for image classifiers."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from mnist_exp.commands.predict import Answer
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


def predict_digit(image: "str | Path | Image.Image | np.ndarray", run: str = "best") -> "Answer":
    """What the model of a run says of one image: a file, a Pillow image, or pixels 0-255 (height, width[, channels]).

    run: an id, a name, latest, best or models:/NAME@ALIAS, in the store of this folder. Raises DataError for what is no
    image or shows nothing, TrackingError where there is no such run.
    """
    import numpy as np
    from PIL import Image

    from mnist_exp.commands.predict import Predictor
    from mnist_exp.config.schema import Tracking
    from mnist_exp.data.images import read_image, to_8_bit
    from mnist_exp.tracking.store import existing_store

    if isinstance(image, str | Path):
        image = read_image(Path(image), str(image))
    elif isinstance(image, np.ndarray):
        image = Image.fromarray(image.squeeze())
    predictor = Predictor.of(existing_store(Tracking(enabled=True, uri=None, experiment="", folder="mlruns")), run)
    tile = predictor.tile(to_8_bit(image, "the image").convert("RGBA"))
    return predictor.answers([tile])[0]
