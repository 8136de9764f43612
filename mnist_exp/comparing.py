"""What runs differ in and whether they differ: configs side by side, and a paired test on identical images."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mlflow.entities import Run

    from mnist_exp.tracking.store import Store

SPLITS = ("val", "test")
SIGNIFICANT = 0.05
# Parameters that say where a run was recorded, or follow from others.
PLUMBING = (
    "tracking.",
    "dataset.digest",
    "dataset.validation_digest",
    "dataset.path",
    "export",
    "name",
    "training.resume",
)

Predictions = Mapping[str, np.ndarray]


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


@dataclass(frozen=True)
class Paired:
    """Two runs on the same images: how many only the first had right, only the second, and of how many.

    p: of McNemar's exact test (1947), the chance of so uneven a split if both were equally good.
    """

    first_only: int
    second_only: int
    images: int
    p: float

    @property
    def verdict(self) -> str:
        """In words, seen from the first."""
        if self.p >= SIGNIFICANT or self.first_only == self.second_only:
            return "no difference shown"
        return "better" if self.first_only > self.second_only else "worse"


def paired(first: Predictions | None, second: Predictions | None, split: str) -> Paired | None:
    """McNemar's test on the images that both have predictions for, found by their digests; None where there are none.

    first, second: arrays of predictions.npz; split: val or test.
    """
    if not first or not second or f"{split}_digests" not in first or f"{split}_digests" not in second:
        return None
    _, ours, theirs = np.intersect1d(first[f"{split}_digests"], second[f"{split}_digests"], return_indices=True)
    if not len(ours):
        return None
    right = _right(first, split)[ours], _right(second, split)[theirs]
    return mcnemar(*right)


def mcnemar(first: np.ndarray, second: np.ndarray) -> Paired:
    """The exact test on bool (n,): which images each had right."""
    from scipy.stats import binomtest

    b, c = int((first & ~second).sum()), int((~first & second).sum())
    p = float(binomtest(b, b + c).pvalue) if b + c else 1.0
    return Paired(b, c, len(first), p)


def differing(runs: Sequence[Compared]) -> list[str]:
    """The parameters in which these runs differ, in the order of the configs; where they were recorded left out."""
    keys = dict.fromkeys(key for run in runs for key in run.params)
    return [key for key in keys if not key.startswith(PLUMBING) and len({run.params.get(key) for run in runs}) > 1]


def difference_of(run: Compared, keys: Sequence[str]) -> str:
    """What sets a run apart, as overrides."""
    return " ".join(f"{key}={run.params[key]}" for key in keys if key in run.params)


def against(first: Compared, run: Compared) -> dict[str, Paired]:
    """How a run does against the first, by split; empty for the first itself."""
    if run is first:
        return {}
    tests = {split: paired(run.predictions, first.predictions, split) for split in SPLITS}
    return {split: test for split, test in tests.items() if test}


def row(run: Compared, tests: Mapping[str, Paired], keys: Sequence[str]) -> dict[str, Any]:
    """All of it as plain values; tests: by split, whose p stands there as */p; keys: the parameters to name."""
    names = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1")
    return {
        "name": run.name,
        "id": run.id,
        **{f"{split}/{name}": run.metrics.get(f"{split}/{name}") for split in SPLITS for name in names},
        **{f"{split}/p": tests[split].p if split in tests else None for split in SPLITS},
        "epochs": _whole(run.tags.get("used_epoch")),
        "seconds": run.seconds,
        "parameters": _whole(run.tags.get("parameters")),
        **{key: run.params.get(key) for key in keys},
    }


def search(
    store: "Store", experiment: str | None, where: Mapping[str, str], sort: str, ascending: bool, most: int
) -> "list[Run]":
    """Finished runs and trials with these parameters, the best by a metric first."""
    from mnist_exp.tracking.lookup import FINISHED, RUNS, places
    from mnist_exp.tracking.store import answering

    conditions = [RUNS, FINISHED, *(f"params.`{key}` = '{value}'" for key, value in where.items())]
    order = f"metrics.`{sort}` {'ASC' if ascending else 'DESC'}"
    with answering(store.uri):
        store.analyze()
        return list(
            store.client.search_runs(
                places(store, experiment), " and ".join(conditions), order_by=[order], max_results=most
            )
        )


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

    from mnist_exp.tracking.lookup import model_run
    from mnist_exp.tracking.store import answering

    run_id = model_run(run)
    with answering(store.uri):
        try:
            path = Path(store.client.download_artifacts(run_id, "predictions.npz"))
        except (MlflowException, OSError):
            if any(found.path == "predictions.npz" for found in store.client.list_artifacts(run_id)):
                raise
            return None
    with np.load(path) as arrays:
        return dict(arrays)


def _right(predictions: Mapping[str, Any], split: str) -> np.ndarray:
    return predictions[f"{split}_predicted"] == predictions[f"{split}_labels"]


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)
