"""What a store holds, by MLflow's client: runs, their files, and the names that others may rely on."""

import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from mlflow import MlflowClient
from mlflow.entities import Run


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")


def runs(client: MlflowClient, condition: str = "") -> list[Run]:
    """All runs that meet a condition, oldest first."""
    experiments = [found.experiment_id for found in client.search_experiments()]
    return list(client.search_runs(experiments, condition, order_by=["attributes.start_time ASC"], max_results=1000))


def run_named(client: MlflowClient, name: str) -> Run:
    (found,) = runs(client, f"attributes.run_name = '{name}'")
    return found


def trials_of(client: MlflowClient, sweep: Run) -> list[Run]:
    return runs(client, f"tags.kind = 'trial' and tags.sweep = '{sweep.info.run_id}'")


def scores_of_the_longest(trials: Iterable[Run]) -> list[float]:
    """The scores that can be compared: in Hyperband those of the last rung that was reached."""
    scored = [trial.data for trial in trials if "score" in trial.data.metrics]
    epochs = [json.loads(trial.tags.get("rung", "{}")).get("epochs", 0) for trial in scored]
    return [t.metrics["score"] for t, longest in zip(scored, epochs, strict=True) if longest == max(epochs)]


def names_of(client: MlflowClient, run: Run) -> SimpleNamespace:
    """The names that others may rely on: of tags, metrics, parameters, artifacts and the files of the model."""
    run = client.get_run(run.info.run_id)
    models = [client.get_logged_model(output.model_id) for output in (run.outputs.model_outputs if run.outputs else [])]
    is_in_sweep = run.data.tags["kind"] in ("trial", "execution")
    return SimpleNamespace(
        tags=set(run.data.tags),
        metrics=set(run.data.metrics),
        parameters=set(run.data.params),
        artifacts=files_below(run.info.artifact_uri) - (OF_WINNERS if is_in_sweep else set()),
        model=set().union(*(files_below(model.artifact_location) for model in models)) - {"registered_model_meta"},
        inputs={key for data in run.inputs.dataset_inputs for key in json.loads(data.dataset.profile)},
    )


# Figures that every trial had. Now the winner has them, and each trial for which the command `figures` draws them.
OF_WINNERS = {f"figures/{name}.png" for name in ("samples", "learning_curves", "predictions", "confident_mistakes")}
OF_WINNERS |= {f"figures/{name}.png" for name in ("per_class", "architecture")}


# Parameters of nets that were given a key beside the net, `augmentation`.
MOVED = {f"model.augmentation.{kind}" for kind in ("translation", "rotation", "zoom")}


def file_of(run: Run, path: str) -> Path:
    """An artifact, where it lies."""
    return Path(run.info.artifact_uri.removeprefix("file://"), path)


def read_json(given: str | Path) -> Any:
    """A tag or a file."""
    return json.loads(given if isinstance(given, str) else given.read_text(encoding="utf-8"))


def files_below(uri: str) -> set[str]:
    folder = Path(uri.removeprefix("file://"))
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def assert_nothing_renamed(before: SimpleNamespace, now: SimpleNamespace) -> None:
    """Names may be added, but each that there was is there."""
    missing = {kind: sorted(names - vars(now)[kind] - MOVED) for kind, names in vars(before).items()}
    assert not any(missing.values()), f"today's run lacks {missing}"


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a trial by their keys, conditions left out; a text in Hydra's syntax, as 4bcc55e wrote it, is read."""
    parser = OverridesParser.create()
    return {
        name.rpartition("/")[2] if "=" in name else name: parser.parse_override(f"key={value}").value()
        if isinstance(value, str)
        else value
        for name, value in values.items()
    }
