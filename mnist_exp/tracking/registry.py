"""Models in the store: logged by a run, loaded, registered under a name with versions and a champion."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from mnist_exp.config.own_code import (
    find_own_objects,
    frozen_part,
    import_own_objects,
    in_stored_form,
    load_keras,
    places_of,
    source_files,
)
from mnist_exp.errors import Problem, TrackingError
from mnist_exp.tracking import serving_loader, tags
from mnist_exp.tracking.environment import user_name
from mnist_exp.tracking.store import Store, point_mlflow_at, store_errors
from mnist_exp.tracking.stored_run import StoredRun, fetch_run

if TYPE_CHECKING:
    import keras
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.models import Model

CHAMPION = "champion"  # the alias of the chosen version
NO_MODEL_OR_ALIAS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # what MLflow answers for each of them
REQUIREMENTS = ("keras", "tensorflow", "numpy", "mlflow")
# In the folder of a model.
DESCRIPTION = "MLmodel"  # holds the ids of the model and of its run
KERAS_FILE, CODE = Path("data", "model.keras"), "code"
SERVING_LOADER = Path("mnist_exp_serving_loader")
OWN_CODE = serving_loader.OWN_CODE  # the key of the metadata


def write_model(folder: Path, model: "keras.Model", metadata: Mapping[str, Any]) -> "keras.Model":
    """Writes a model as MLflow stores it, with signature and requirements, and returns it as loaded again.

    MLflow's server loads it with `serving_loader`. The modules of layers of the user's own are recorded in the metadata
    and their files are kept for the server.
    """
    import mlflow.keras
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    sides = [-1 if side is None else side for side in model.input_shape[1:]]
    name = model.inputs[0]._keras_history.operation.name  # under which MLflow's server hands the images over
    pixels = TensorSpec(np.dtype("uint8"), (-1, *sides), name)
    probabilities = TensorSpec(np.dtype("float32"), (-1, model.output_shape[-1]), "probabilities")
    objects = find_own_objects(model)
    places = places_of(objects)
    description = Model(metadata={**metadata, **({OWN_CODE: places} if places else {})})
    shutil.rmtree(folder, ignore_errors=True)  # of a call that failed
    # MLflow would search all installed packages for what requires other versions, which are those just read: 0.4 s.
    unchecked = patch("mlflow.utils.environment.warn_dependency_requirement_mismatches")
    with in_stored_form(model), unchecked:
        mlflow.keras.save_model(
            model,
            str(folder),
            mlflow_model=description,
            signature=ModelSignature(Schema([pixels]), Schema([probabilities])),
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
        )
    _add_code(folder, description, places)
    return load_keras(folder / KERAS_FILE, objects, frozen_part(model))


def _add_code(folder: Path, description: "Model", places: Mapping[str, str]) -> None:
    """Adds to a model the module with which MLflow's server loads it, and the files of the user's code."""
    for source, place in source_files(places):
        (folder / CODE / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / CODE / place)
    (folder / CODE).mkdir(exist_ok=True)
    loader = Path(serving_loader.__file__)
    shutil.copy(loader, folder / CODE / SERVING_LOADER.with_suffix(".py"))
    description.flavors["python_function"] |= {"loader_module": str(SERVING_LOADER), "code": CODE}
    description.save(str(folder / DESCRIPTION))


def upload_model(store: Store, run_id: str, folder: Path) -> None:
    """Logs a model that `write_model` wrote. To call it again creates no second model."""
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model

    client, run = store.client, store.client.get_run(run_id)
    experiment_id = run.info.experiment_id
    found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    model = found[0] if found else client.create_logged_model(experiment_id, "model", run_id, model_type="keras")
    description = Model.load(str(folder))
    description.run_id, description.model_id = run_id, model.model_id
    description.artifact_path = model.artifact_location
    written = folder.with_name("MLmodel.new")  # a process that is killed here leaves the folder as it was
    description.save(str(written))
    os.replace(written, folder / DESCRIPTION)
    if not (run.outputs and run.outputs.model_outputs):  # MLflow refuses to take it again
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    histories = (client.get_metric_history(run_id, key) for key in run.data.metrics)
    points = [point for history in histories for point in history if point.step == 0 and point.model_id is None]
    linked = [Metric(p.key, p.value, p.timestamp, p.step, model.model_id, run_id=run_id) for p in points]
    client.log_batch(run_id, metrics=linked)
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")


def load_model(uri: str, run_id: str) -> "keras.Model":
    """Loads the model that a run logged in the store with this URI.

    The file is read in Keras's safe mode, whatever the description beside it says, so it runs no code of the store.
    Raises TrackingError if the store has no model of the run, if Keras refuses its file, or if it has layers of the
    user's own that are not in the current folder's code.
    """
    with _fetch(uri, run_id) as folder:
        objects = import_own_objects(_read_metadata(folder / DESCRIPTION, run_id).get(OWN_CODE, {}))
        with _file_errors(run_id, "has a model that Keras refuses to load"):
            return load_keras(folder / KERAS_FILE, objects)


def read_metadata(uri: str, run_id: str) -> dict[str, Any]:
    """Returns the metadata of the model that a run logged: class names, input, data set, preparation."""
    with _fetch(uri, run_id, f"/{DESCRIPTION}") as path:
        return _read_metadata(path, run_id)


def _read_metadata(path: Path, run_id: str) -> dict[str, Any]:
    from mlflow.models import Model

    if not path.is_file():  # MLflow fetches nothing, without an error, of a model that was not delivered
        raise TrackingError(_no_model(run_id))
    with _file_errors(run_id, "has a model whose description MLflow cannot read"):
        return Model.load(str(path)).metadata or {}


def _no_model(run_id: str) -> Problem:
    remedy = "if its process could not deliver it, run on its machine: python -m mnist_exp store deliver"
    return Problem(f"run {run_id[:8]}", "has no model in the store", remedy=remedy)


@contextmanager
def _file_errors(run_id: str, rule: str) -> Iterator[None]:
    """Turns whatever a library raises about a file, which somebody else may have written, into a TrackingError."""
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        remedy = "train it again, or take another run"
        raise TrackingError(Problem(f"run {run_id[:8]}", f"{rule} ({text})", remedy=remedy)) from error


@contextmanager
def _fetch(uri: str, run_id: str, path: str = "") -> Iterator[Path]:
    """Fetches a model, or a file of it, to a place that exists as long as the block."""
    import mlflow
    from mlflow.exceptions import MlflowException

    point_mlflow_at(uri)
    with tempfile.TemporaryDirectory() as folder:
        with store_errors(uri):
            try:
                source = f"runs:/{run_id}/model{path}"
                fetched = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=folder)
            except (MlflowException, OSError) as error:
                mlflow.MlflowClient(uri).get_run(run_id)  # raises if it is the store that fails
                raise TrackingError(_no_model(run_id)) from error
        yield Path(fetched)


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
        version = str(registered.version)
        store.client.set_registered_model_alias(name, CHAMPION, version)
        before = f"tags.`{tags.CHAMPION}` LIKE '{name} version %'"
        for other in store.client.search_runs([run.experiment_id], before) if "'" not in name else ():
            store.client.delete_tag(other.info.run_id, tags.CHAMPION)
    store.set_tags(run.id, {tags.CHAMPION: f"{name} version {version}", tags.PROMOTED_BY: user_name()})
    return version


def find_registered_model(store: Store, name: str) -> "RegisteredModel | None":
    """Returns the registered model with this name, None if there is none."""
    return _find(lambda: store.client.get_registered_model(name))


def find_model(store: Store, model_id: str) -> "LoggedModel | None":
    """Returns the logged model with this id, None if there is none."""
    return _find(lambda: store.client.get_logged_model(model_id))


def _find(get: Callable[[], Any]) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return get()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def list_versions(store: Store, name: str) -> "list[ModelVersion]":
    """Returns the versions of a registered model, the first version first."""
    found = store.client.search_model_versions(f"name = '{name}'")
    return sorted(found, key=lambda version: int(version.version))
