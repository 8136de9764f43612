"""Sweeps by their command line, of nets that fail when they should."""

import shutil
from pathlib import Path
from typing import Any

import processes
from processes import Process

from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.store import Store, open_store

NET = """
import os, signal
import keras

def net(image_shape, classes, *, width):
    if width == 13:
        raise ValueError("thirteen brings bad luck")
    if width == 14:
        raise KeyError("fourteen")
    if width == 15:
        raise RuntimeError("fifteen")
    if width == 17:
        raise SystemExit(0)
    if width == 66:
        os.kill(os.getpid(), signal.SIGKILL)
    inputs = keras.Input(image_shape)
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Dense(width, "relu")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(x))
"""
OWN = ["model=custom", "model._target_=my_net.net", "training=smoke"]


def prepare_folder(folder: Path, database: Path) -> Path:
    """A folder with the nets and an empty store in it."""
    (folder / "my_net.py").write_text(NET)
    (folder / "mlruns").mkdir()
    shutil.copy(database, folder / "mlruns")
    return folder


def run(folder: Path, *arguments: str, **keys: Any) -> Process:
    """Runs `python -m mnist_exp -m ARGUMENTS`."""
    return processes.run("-m", *arguments, cwd=folder, **keys)


def store_in(folder: Path) -> Store:
    return open_store(None, folder / "mlruns")


def trials(store: Store) -> list:
    return [run for run in list_runs(store, "tags.kind = 'trial'") if "superseded" not in run.tags]
