"""Models in the store: logged, loaded, registered, and the champion among them."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mnist_exp.tracking.find import model_run
from mnist_exp.tracking.store import Store, answering, point_mlflow_at

if TYPE_CHECKING:
    import keras
    from mlflow.entities import Run


def _name_model(store: Store, run_id: str) -> str:
    """The id of a new logged model; a call of its own, so that another try at its files makes no second one."""
    experiment_id = store.client.get_run(run_id).info.experiment_id
    return store.client.create_logged_model(
        experiment_id, name="model", source_run_id=run_id, model_type="keras"
    ).model_id


def _log_model(model_id: str, model: "keras.Model", run_id: str, metadata: Mapping[str, Any]) -> "keras.Model":
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
        pip_requirements=[f"{package}=={version(package)}" for package in ("keras", "tensorflow", "numpy", "mlflow")],
        metadata=dict(metadata),
    )
    return mlflow.keras.load_model(info.model_uri)


def load_model(uri: str | None, run_id: str) -> "keras.Model":
    """The model a run logged."""
    import mlflow.keras

    from mnist_exp.tracking.store import point_mlflow_at

    point_mlflow_at(uri)
    return mlflow.keras.load_model(f"runs:/{run_id}/model")


ALIAS = "champion"


def _champion(store: Store, name: str) -> "tuple[str, Run] | None":
    """The version that is champion, and its run."""
    from mlflow.exceptions import MlflowException

    try:
        version = store.client.get_model_version_by_alias(name, ALIAS)
    except MlflowException:  # no such model, or no such alias yet
        return None
    with answering(store.uri):
        return str(version.version), store.client.get_run(str(version.run_id))


def _register(store: Store, run: "Run", name: str, facts: Mapping[str, str]) -> str:
    import mlflow

    with answering(store.uri):
        point_mlflow_at(store.uri)
        found = mlflow.register_model(f"runs:/{model_run(run)}/model", name, tags=dict(facts))
        store.client.set_registered_model_alias(name, ALIAS, str(found.version))
    return str(found.version)
