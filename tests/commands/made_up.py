"""Writes runs into a store without training: their parameters, metrics and predictions are made up."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient

from mnist_exp.tracking.sqlite import DATABASE, uri_of
from mnist_exp.tracking.store import Store, open_store

CONFIG = {
    "dataset.digest": "d" * 64, "dataset.validation_digest": "v" * 64, "dataset.name": "made-up", "seed": 0,
    "model": "mlp", "model.widths": "[16]", "optimizer.learning_rate": 0.001, "training.epochs": 5,
    "tracking.folder": "mlruns", "name": None,
}  # fmt: skip
SWEEP = {  # the sweep.json of a sweep
    "format": 2,
    "space": {"parameters": []},
    "settings": {"objective": "val/accuracy", "direction": "max", "max_trials": 10},
}


def empty_store(folder: Path, database: Path) -> Store:
    """Returns a store without runs in a new folder. database: one as it was created."""
    folder.mkdir()
    shutil.copy(database, folder)
    return open_store(None, folder)


@dataclass
class MadeUpStore:
    """A store in `folder`/mlruns."""

    folder: Path
    database: Path
    client: MlflowClient = field(init=False)

    def __post_init__(self) -> None:
        store = self.folder / "mlruns"
        store.mkdir()
        shutil.copy(self.database, store / DATABASE)
        self.client = MlflowClient(uri_of(store / DATABASE))
        self.experiment = self.client.create_experiment("made-up", (store / "artifacts").as_uri())

    def add(
        self,
        name: str,
        accuracy: float | None = None,
        right: np.ndarray | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        status: str = "FINISHED",
        **params: Any,
    ) -> str:
        """Adds a run and returns its id. right: which of the validation images it classified correctly.

        params: `model__widths="[8]"` writes model.widths.
        """
        run = self.client.create_run(self.experiment, tags={"kind": "run", **(tags or {})}, run_name=name).info.run_id
        given = {key.replace("__", "."): value for key, value in params.items()}
        for key, value in {**CONFIG, **given}.items():
            self.client.log_param(run, key, value)
        if right is not None:
            accuracy = float(right.mean())
            self._log_predictions(run, right)
        values = {"val/accuracy": accuracy} if accuracy is not None else {}
        for key, value in {**values, **(metrics or {})}.items():
            self.client.log_metric(run, key, value)
        self.client.set_terminated(run, status)
        return run

    def _log_predictions(self, run: str, right: np.ndarray) -> None:
        path = self.folder / "predictions.npz"
        digests = np.array([f"{number:012x}{0:020x}" for number in range(len(right))], "S32")
        arrays = {"val_labels": np.ones(len(right), np.int16), "val_predicted": right.astype(np.int16)}
        np.savez(path, **arrays, val_digests=digests)
        self.client.log_artifact(run, str(path))
        path.unlink()
