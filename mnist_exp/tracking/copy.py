"""Carries a store to another: runs, metrics, artifacts, models and champions, and checks what arrived.

A run's copy is marked as whole last. What an interrupted copy left unmarked is made anew, so copying again goes on.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.errors import TrackingError
from mnist_exp.tracking.store import Store, all_of, answering, point_mlflow_at

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Metric, Run

COPIED, WHOLE = "copied_from", "copied_whole"  # tags of a copy: the id it had, and that nothing is missing
IDS = ("mlflow.parentRunId", "sweep", "model_run", "reproduces")  # tags that name another run
BATCH = 1000  # metrics a call


@dataclass
class Copied:
    """What was done: runs copied now and before, and what of them arrived."""

    runs: int = 0
    before: int = 0
    metrics: int = 0
    files: int = 0
    models: int = 0
    versions: int = 0
    ids: dict[str, str] = field(default_factory=dict, repr=False)  # of runs: here and there
    model_ids: dict[str, str] = field(default_factory=dict, repr=False)


def copy_store(source: Store, target: Store, said: Callable[[str], None] = lambda words: None) -> Copied:
    """Copies every run that ended and every registered model. Raises TrackingError where something did not arrive."""
    done = Copied()
    with answering(target.uri):
        for run in _ended(source):
            name = source.client.get_experiment(run.info.experiment_id).name
            experiment = target.experiment_id(name)
            if known := _copy_of(target, experiment, run.info.run_id):
                done.ids[run.info.run_id] = known.info.run_id
                if WHOLE in known.data.tags:
                    done.before += 1
                    done.model_ids |= _paired_models(source, target, run, known)
                    continue
                target.client.delete_run(known.info.run_id)
            said(f"{run.info.run_name} ({run.info.run_id[:8]})")
            _copy_run(source, target, run, experiment, done)
        _copy_registered(source, target, done)
    return done


def _ended(store: Store) -> "list[Run]":
    """Parents before their children, which name them."""
    runs = [run for run in store.runs("attributes.status != 'RUNNING'") if COPIED not in run.data.tags]
    return sorted(runs, key=lambda run: (run.info.start_time, "mlflow.parentRunId" in run.data.tags))


def _copy_of(target: Store, experiment: str, run_id: str) -> "Run | None":
    found = target.runs(f"tags.{COPIED} = '{run_id}'", [experiment])
    return found[0] if found else None


def _copy_run(source: Store, target: Store, run: "Run", experiment: str, done: Copied) -> None:
    from mlflow.entities import Param

    tags = {key: done.ids.get(value, value) if key in IDS else value for key, value in run.data.tags.items()}
    tags = {**tags, COPIED: run.info.run_id}
    copy = target.client.create_run(experiment, run.info.start_time, tags, run.info.run_name).info.run_id
    done.ids[run.info.run_id] = copy
    params = [Param(key, value) for key, value in run.data.params.items()]
    for some in _parts(params, 100):
        target.client.log_batch(copy, params=some)
    points = [point for key in run.data.metrics for point in source.client.get_metric_history(run.info.run_id, key)]
    for some in _parts(points, BATCH):
        target.client.log_batch(copy, metrics=some)
    if run.inputs.dataset_inputs:
        target.client.log_inputs(copy, run.inputs.dataset_inputs)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(source.client.download_artifacts(run.info.run_id, "", folder))
        target.client.log_artifacts(copy, str(files))
        done.files += _compare(files, lambda to: target.client.download_artifacts(copy, "", to), run.info.run_name)
    for model in _models(source, run):
        done.model_ids[model.model_id] = _copy_model(target, model, experiment, copy)
        done.models += 1
    _compare_points(target, copy, run, points)
    target.client.set_terminated(copy, run.info.status, run.info.end_time)
    target.client.set_tag(copy, WHOLE, "true")
    done.runs += 1
    done.metrics += len(points)


def _models(store: Store, run: "Run") -> "list[LoggedModel]":
    outputs = run.outputs.model_outputs if run.outputs else []
    return [store.client.get_logged_model(output.model_id) for output in outputs]


def _paired_models(source: Store, target: Store, run: "Run", copy: "Run") -> dict[str, str]:
    pairs = zip(_models(source, run), _models(target, copy), strict=True)
    return {ours.model_id: theirs.model_id for ours, theirs in pairs}


def _copy_model(target: Store, model: "LoggedModel", experiment: str, run_id: str) -> str:
    """The model's files, with the description that names run and model naming the copies."""
    import mlflow
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    copy = target.client.create_logged_model(
        experiment, model.name, run_id, dict(model.tags), dict(model.params or {}), model.model_type
    )
    with tempfile.TemporaryDirectory() as folder:
        files = Path(mlflow.artifacts.download_artifacts(artifact_uri=model.artifact_location, dst_path=folder))
        described = Model.load(str(files))
        described.run_id, described.model_id = run_id, copy.model_id
        described.artifact_path = copy.artifact_location
        described.save(str(files / "MLmodel"))
        target.client.log_model_artifacts(copy.model_id, str(files))
        point_mlflow_at(target.uri)

        def fetched(to: str) -> str:
            return str(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{copy.model_id}", dst_path=to))

        target.client.finalize_logged_model(copy.model_id, "READY")
        _compare(files, fetched, str(model.name))
    target.client.log_outputs(run_id, [LoggedModelOutput(copy.model_id, 0)])
    return str(copy.model_id)


def _copy_registered(source: Store, target: Store, done: Copied) -> None:
    """Names, versions in their order, and aliases; versions that are there already stay."""
    from mlflow.exceptions import MlflowException

    for registered in all_of(source.client.search_registered_models):
        name = registered.name
        try:
            known = {version.run_id: version for version in _versions(target, name)}
            target.client.get_registered_model(name)
        except MlflowException:
            known = {}
            target.client.create_registered_model(name, dict(registered.tags), registered.description)
        numbers: dict[str, str] = {}
        for version in _versions(source, name):
            run_id = done.ids.get(version.run_id)
            model_id = done.model_ids.get(str(version.source).removeprefix("models:/"))
            if run_id is None or model_id is None:
                continue
            if run_id not in known:
                known[run_id] = target.client.create_model_version(
                    name, f"models:/{model_id}", run_id, dict(version.tags), model_id=model_id
                )
                done.versions += 1
            numbers[str(version.version)] = str(known[run_id].version)
        for alias, number in registered.aliases.items():
            if str(number) in numbers:
                target.client.set_registered_model_alias(name, alias, numbers[str(number)])


def _versions(store: Store, name: str) -> "list[Any]":
    return sorted(store.client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))


def _compare(files: Path, fetched: Callable[[str], str], name: str | None) -> int:
    """The number of files, each there with the same digest."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = _digests(files), _digests(Path(fetched(folder)))
    if differing := sorted(path for path in ours if ours[path] != theirs.get(path)):
        raise TrackingError(f"{name}: {', '.join(differing[:5])} did not arrive as sent; copy again")
    return len(ours)


def _compare_points(target: Store, copy: str, run: "Run", points: "list[Metric]") -> None:
    found = [point for key in run.data.metrics for point in target.client.get_metric_history(copy, key)]
    if _told(found) != _told(points) or target.client.get_run(copy).data.params != run.data.params:
        raise TrackingError(f"{run.info.run_name}: of {len(points)} metrics {len(found)} arrived; copy again")


def _told(points: "list[Metric]") -> set[tuple[str, int, float]]:
    return {(point.key, point.step, point.value) for point in points}


def _digests(folder: Path) -> Mapping[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _parts(values: list, size: int) -> Iterator[list]:
    return (values[start : start + size] for start in range(0, len(values), size))
