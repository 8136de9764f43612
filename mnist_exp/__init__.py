"""Experiment tracking and hyperparameter sweeps for image classifiers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import numpy as np
    import pandas as pd
    from PIL import Image

    from mnist_exp.commands.compare import Comparison
    from mnist_exp.commands.predict import Prediction, Predictor
    from mnist_exp.experiment import Result
    from mnist_exp.sweep.result import SweepResult
    from mnist_exp.tracking.store import Store

__all__ = ["compare", "find_runs", "load_model", "predict_digit", "predictions", "run", "run_sweep"]


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
    from mnist_exp.log import hide_library_output
    from mnist_exp.terminal import RunDisplay

    config = configure(compose(overrides if data is None else (*GIVEN, *overrides)))
    if quiet:
        with hide_library_output():
            return run_experiment(config, data=data)
    display = RunDisplay()
    with hide_library_output() as display.output, display.cleared():
        result = run_experiment(config, display, data)
    display.show_result(result)
    return result


def run_sweep(*overrides: str, quiet: bool = False) -> "SweepResult":
    """Runs a sweep, as `python -m mnist_exp -m` does.

    overrides: such as "sweeps=mlp", "model.dropout=0.1,0.2" or "sweep.resume=latest". quiet: print nothing. Returns the
    best trial, a table of all, the metrics of the winner on the test set, and the report. Raises a UserError
    (mnist_exp.errors) if the sweep cannot start, and TrainingError if it fails.
    """
    from mnist_exp.config.compose import compose_sweep
    from mnist_exp.errors import ConfigError, Problem, TrainingError
    from mnist_exp.log import hide_library_output
    from mnist_exp.sweep.display import SweepDisplay
    from mnist_exp.sweep.main import run_sweep as run_study

    display = SweepDisplay()
    display.console.quiet = quiet
    with hide_library_output():
        result = run_study(compose_sweep(overrides), display)
    if result is None:
        raise ConfigError(Problem("sweep.plan", "must be false to run a sweep", True))
    if result.problem:
        raise TrainingError(Problem(f"the sweep {result.record.run.label}", f"has failed: {result.problem}"))
    return result


def find_runs(
    where: Mapping[str, Any] | None = None, *, sort: str = "val/accuracy", top: int = 100, experiment: str | None = None
) -> "pd.DataFrame":
    """Returns the finished runs and trials in the store of this folder, the best first.

    where: values of parameters, such as {"model": "cnn", "model.widths": [128, 64]}. sort: the metric that ranks; at
    most `top` runs are returned, with run_id, name, started, seconds, their metrics, and the parameters in which they
    differ. Raises TrackingError if there is no store or experiment.
    """
    import pandas as pd

    from mnist_exp.commands.select_runs import find_differences
    from mnist_exp.config.objective import Objective
    from mnist_exp.tracking.find import search_runs

    runs = search_runs(_store(), Objective.from_metric(sort), where or {}, top, experiment)
    keys = find_differences(runs)
    rows = [
        {
            "run_id": run.id,
            "name": run.name,
            "started": pd.Timestamp(run.started, unit="s", tz="UTC"),
            "seconds": run.seconds,
            **{key: run.params.get(key) for key in keys},
            **run.metrics,
        }
        for run in runs
    ]
    return pd.DataFrame(rows)


def compare(*runs: str, where: Mapping[str, Any] | None = None, top: int = 10) -> "Comparison":
    """Compares runs, as `python -m mnist_exp compare` does: accuracies, intervals, and whether they differ.

    runs: ids or names; without them the best `top` finished runs of each data set, with the parameters of `where`.
    `.table` is a DataFrame, `.notes()` says how to read it. Raises TrackingError if there are no such runs.
    """
    from mnist_exp.commands.compare import compare as compare_runs
    from mnist_exp.commands.select_runs import Choice

    return compare_runs(_store(), Choice(runs, where=where or {}, top=top))


def predictions(run: str = "best") -> "dict[str, np.ndarray]":
    """Returns what a run answered for each image that it was scored on.

    run: as for load_model. The arrays of a split, val or test, are {split}_labels, the true classes (n,),
    {split}_probabilities (n, classes) and {split}_digests, hashes of the images (n,). Raises TrackingError if there is
    no such run, or if it stored none.
    """
    from mnist_exp.errors import Problem, TrackingError
    from mnist_exp.tracking.find import find_run
    from mnist_exp.tracking.stored_run import read_run

    store = _store()
    found = read_run(store, find_run(store, run))
    if found.predictions is None:
        raise TrackingError(Problem(found.label, "has no predictions in the store"))
    return dict(found.predictions)


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

    return Predictor.load(_store(), run)


def _store() -> "Store":
    """The store of this folder, or that of MLFLOW_TRACKING_URI."""
    from mnist_exp.config.schema import Tracking
    from mnist_exp.log import hide_library_output
    from mnist_exp.tracking.store import connect_existing

    with hide_library_output():
        return connect_existing(Tracking())
