"""Lets MLflow's server load a model with layers of the user's own. A copy of this file is kept with each such model."""

import importlib
import os
from functools import reduce
from typing import Any

OWN_CODE = "own_code"  # in a model's metadata: where each object of the user's own is, such as `my_layers:Scale`


def _load_pyfunc(path: str) -> Any:
    """Imports the user's objects and returns MLflow's wrapper around the model."""
    import keras
    import mlflow.keras
    from mlflow.models import Model

    metadata = Model.load(os.path.join(path, "MLmodel")).metadata or {}
    objects = {name: _import(place) for name, place in metadata[OWN_CODE].items()}
    with keras.saving.custom_object_scope(objects):
        return mlflow.keras._load_pyfunc(path)


def _import(place: str) -> Any:
    module, _, path = place.partition(":")
    return reduce(getattr, path.split("."), importlib.import_module(module))
