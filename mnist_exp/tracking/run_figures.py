"""Draws the figures of a run from what the store keeps of it. A trial of a sweep has them only if it won."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_exp.data.splits import Splits
from mnist_exp.errors import DataError, Problem, TrackingError
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import SPLITS, Evaluation
from mnist_exp.evaluation.predictions import digests_of
from mnist_exp.evaluation.run_files import RunResults
from mnist_exp.tracking.registry import load_model
from mnist_exp.tracking.store import Store, store_errors
from mnist_exp.tracking.stored_run import StoredRun, download, fetch_run, read_run

if TYPE_CHECKING:
    import keras


def draw_run(
    store: Store,
    run: StoredRun,
    splits: Splits,
    model: "keras.Model | None" = None,
    augmented: np.ndarray | None = None,
) -> list[str]:
    """Draws all figures of a finished run and adds them to its artifacts. Returns their paths there.

    For a trial with several seeds they are those of its best seed. splits: the data of the run; DataError if they are
    others. model: the trained one, if it is loaded. augmented: training images as `show_changes` returns them.
    """
    from mnist_exp.evaluation.figures import draw_figures

    source = run if run.model_run_id == run.id else fetch_run(store, run.model_run_id)
    predictions = read_run(store, source).predictions
    if not predictions:
        raise TrackingError(Problem(run.label, "has no predictions, which the figures show"))
    if splits.test and "test_probabilities" not in predictions:
        splits = replace(splits, test=None)
    for name, part in splits.scored.items():
        if not np.array_equal(digests_of(part), predictions[f"{name}_digests"]):
            rule = f"must be those on which {run.label} was scored, but the {SPLITS[name]} images are others"
            raise DataError(Problem("the data set", rule, remedy="put those data back"))
    with download(store, source.id, "history.json") as path:
        history = History.from_curves(json.loads(path.read_text(encoding="utf-8")))
    evaluations = {name: _evaluation(predictions, name, splits.class_names) for name in splits.scored}
    model = model or load_model(store.uri, source.id)
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw_figures(Path(folder), RunResults.of(model, splits, history, evaluations, augmented))
        with store_errors(store.uri):
            store.client.log_artifacts(source.id, folder)
    return drawn


def _evaluation(predictions: Any, name: str, class_names: tuple[str, ...]) -> Evaluation:
    labels, probabilities = predictions[f"{name}_labels"], predictions[f"{name}_probabilities"]
    return Evaluation(labels.astype(np.int64), probabilities.astype(np.float32), class_names)
