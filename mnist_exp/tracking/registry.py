"""Models in the store: logged by a run, loaded, registered under a name with versions and a champion."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.tracking.store import Store, point_mlflow_at, store_errors
from mnist_exp.tracking.stored_run import StoredRun, fetch_run

if TYPE_CHECKING:
    import keras
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"  # the alias of the chosen version
NO_MODEL_OR_ALIAS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # what MLflow answers for each of them
REQUIREMENTS = ("keras", "tensorflow", "numpy", "mlflow")


def create_model(store: Store, run_id: str) -> str:
    """Creates a logged model and returns its id. A call of its own: to log the files again creates no second model."""
    experiment_id = store.client.get_run(run_id).info.experiment_id
    model = store.client.create_logged_model(experiment_id, name="model", source_run_id=run_id, model_type="keras")
    return model.model_id


def log_model(model_id: str, model: "keras.Model", run_id: str, metadata: Mapping[str, Any]) -> "keras.Model":
    """Logs the files of a model with signature and requirements, and returns the model as loaded from the store."""
    import mlflow.keras
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    pixels = TensorSpec(np.dtype("uint8"), (-1, *model.input_shape[1:]), "pixels")
    probabilities = TensorSpec(np.dtype("float32"), (-1, model.output_shape[-1]), "probabilities")
    info = Model.log(
        artifact_path=None,
        model_id=model_id,
        flavor=mlflow.keras,
        run_id=run_id,
        model=model,
        signature=ModelSignature(Schema([pixels]), Schema([probabilities])),
        pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
        metadata=dict(metadata),
    )
    return mlflow.keras.load_model(info.model_uri)


def load_model(uri: str | None, run_id: str) -> "keras.Model":
    """Loads the model that a run logged in the store with this URI.

    The file is read in Keras's safe mode, whatever the description beside it says: it runs no code of the store.
    """
    import keras
    import mlflow

    point_mlflow_at(uri)
    folder = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/model")
    return keras.saving.load_model(Path(folder, "data", "model.keras"), safe_mode=True)


def read_metadata(uri: str | None, run_id: str) -> dict[str, Any]:
    """Returns the metadata of the model that a run logged: class names, input, data set, preparation."""
    from mlflow.models import Model

    point_mlflow_at(uri)
    return Model.load(f"runs:/{run_id}/model").metadata or {}


def find_registered(store: Store, uri: str) -> StoredRun:
    """Returns the run that made a registered model. uri: models:/NAME@ALIAS or models:/NAME/VERSION."""
    from mlflow.exceptions import MlflowException

    name, _, alias = uri.removeprefix("models:/").partition("@")
    try:
        if alias:
            found = store.client.get_model_version_by_alias(name, alias)
        else:
            name, _, number = name.rpartition("/")
            found = store.client.get_model_version(name, number)
    except MlflowException as error:
        uris = ", ".join(f"models:/{model.name}" for model in store.client.search_registered_models())
        remedy = f"the registered models are: {uris}" if uris else "register one with: python -m mnist_exp promote RUN"
        raise TrackingError(Problem(uri, "is not a registered model", remedy=remedy)) from error
    return fetch_run(store, str(found.run_id))


def find_champion(store: Store, name: str) -> tuple[str, StoredRun] | None:
    """Returns the number of the version that is champion, and its run; None if there is no champion."""
    from mlflow.exceptions import MlflowException

    with store_errors(store.uri):
        try:
            champion = store.client.get_model_version_by_alias(name, CHAMPION)
        except MlflowException as error:
            if error.error_code in NO_MODEL_OR_ALIAS:
                return None
            raise
    return str(champion.version), fetch_run(store, str(champion.run_id))


def register_champion(store: Store, run: StoredRun, name: str, facts: Mapping[str, str]) -> str:
    """Registers the model of a run as a new version and makes it the champion. Returns the number of the version."""
    import mlflow

    with store_errors(store.uri):
        point_mlflow_at(store.uri)
        registered = mlflow.register_model(f"runs:/{run.model_run_id}/model", name, tags=dict(facts))
        store.client.set_registered_model_alias(name, CHAMPION, str(registered.version))
    return str(registered.version)


def list_versions(store: Store, name: str) -> "list[ModelVersion]":
    """Returns the versions of a registered model, the first version first."""
    found = store.client.search_model_versions(f"name = '{name}'")
    return sorted(found, key=lambda version: int(version.version))
