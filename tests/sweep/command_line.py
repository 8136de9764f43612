"""Sweeps by their command line, of nets that fail when they should."""

import subprocess
import sys
from pathlib import Path

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
    if width == 66:
        os.kill(os.getpid(), signal.SIGKILL)
    inputs = keras.Input(image_shape)
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Dense(width, "relu")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(x))
"""
OWN = ["model=custom", "model._target_=my_net.net", "training=smoke"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mnist_exp", "-m", *arguments]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, timeout=400, check=False)


def store_in(folder: Path) -> Store:
    return open_store(None, folder / "mlruns")


def trials(store: Store) -> list:
    return [run for run in list_runs(store, "tags.kind = 'trial'") if "superseded" not in run.tags]
