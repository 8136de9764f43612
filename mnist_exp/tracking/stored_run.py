"""A run as it was stored: plain values, files and predictions."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnist_exp.evaluation.predictions import Predictions, read_predictions

if TYPE_CHECKING:
    from mlflow.entities import Run

    from mnist_exp.tracking.store import Store


@dataclass(frozen=True)
class Compared:
    """A run as comparisons show it. params: its config; predictions: arrays of its predictions.npz, if it has one."""

    id: str
    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    seconds: float | None = None
    predictions: Predictions | None = field(default=None, repr=False)


def all_compared(store: "Store", runs: "Sequence[Run]") -> list[Compared]:
    """Several runs, fetched at once: from a server one after the other took 5 s for ten."""
    with ThreadPoolExecutor(10) as threads:
        return list(threads.map(partial(compared, store), runs))


def compared(store: "Store", run: "Run") -> Compared:
    """A run with its predictions, as far as it stored them."""
    seconds = (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else None
    return Compared(
        run.info.run_id,
        str(run.info.run_name),
        run.data.params,
        run.data.metrics,
        run.data.tags,
        seconds,
        _predictions(store, run),
    )


def _predictions(store: "Store", run: "Run") -> dict[str, np.ndarray] | None:
    from mlflow.exceptions import MlflowException

    from mnist_exp.tracking.find import model_run
    from mnist_exp.tracking.store import answering

    run_id = model_run(run)
    with answering(store.uri):
        try:
            path = Path(store.client.download_artifacts(run_id, "predictions.npz"))
        except (MlflowException, OSError):
            if any(found.path == "predictions.npz" for found in store.client.list_artifacts(run_id)):
                raise
            return None
    return read_predictions(path)
