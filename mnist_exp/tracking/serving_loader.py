"""Lets MLflow's server load a model and refuse what are no pixels. A copy of this file is kept with each model."""

import importlib
import os
from collections.abc import Mapping
from functools import reduce
from typing import Any

OWN_CODE = "own_code"  # in a model's metadata: where each object of the user's own is, such as `my_layers:Scale`
DARKEST = 3  # the least that the brightest of some pixels must be: floats from 0 to 1, or standardized, stay below


class Pixels:
    """Checks the pixels that it gets before the model of MLflow's own wrapper answers."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    def get_raw_model(self) -> Any:
        return self.wrapped.get_raw_model()

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Raises MlflowException, which the server answers with status 400, for an input that was scaled."""
        check_pixels(data)
        return self.wrapped.predict(data)


def check_pixels(data: Any) -> None:
    """Raises MlflowException if all pixels are nearly black.

    The server turns floats into whole numbers before this program sees them, so those from 0 to 1 are all 0 or 1.
    """
    import numpy as np
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    arrays = list(data.values()) if isinstance(data, Mapping) else [data]
    brightest = max((np.max(array) for array in arrays if np.size(array)), default=DARKEST)
    if brightest < DARKEST:
        rule = "pixels must be whole numbers from 0 to 255, as in an image file"
        found = f"the largest of these is {brightest}; if they were divided by 255, send them as they were"
        raise MlflowException(f"{rule}, but {found}", INVALID_PARAMETER_VALUE)


def _load_pyfunc(path: str) -> Any:
    """Imports the user's objects and returns MLflow's wrapper around the model."""
    import keras
    import mlflow.keras
    from mlflow.models import Model

    metadata = Model.load(os.path.join(path, "MLmodel")).metadata or {}
    objects = {name: _import(place) for name, place in metadata.get(OWN_CODE, {}).items()}
    with keras.saving.custom_object_scope(objects):
        return Pixels(mlflow.keras._load_pyfunc(path))


def _import(place: str) -> Any:
    module, _, path = place.partition(":")
    return reduce(getattr, path.split("."), importlib.import_module(module))
