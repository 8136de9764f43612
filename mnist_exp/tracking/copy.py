"""Copies a store to another: runs, metrics, artifacts, models and champions; and checks what arrived.

A copied run is marked as whole last. A run without the mark is copied again, so an interrupted copy can be repeated.
"""

import filecmp
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import mlflow
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.tracking import tags
from mnist_exp.tracking.find import fetch_runs, iterate_pages
from mnist_exp.tracking.registry import list_versions
from mnist_exp.tracking.store import Store, point_mlflow_at, store_errors

IDS = (tags.PARENT, tags.SWEEP, tags.MODEL_RUN, tags.REPRODUCES)  # tags that hold the id of another run


@dataclass
class CopySummary:
    """What was copied. before: runs that were copied earlier. ids, model_ids: from the first store to the second."""

    runs: int = 0
    before: int = 0
    metrics: int = 0
    files: int = 0
    models: int = 0
    versions: int = 0
    ids: dict[str, str] = field(default_factory=dict, repr=False)
    model_ids: dict[str, str] = field(default_factory=dict, repr=False)


def copy_store(source: Store, target: Store, report: Callable[[str], None] = lambda label: None) -> CopySummary:
    """Copies every run that ended and every registered model. Raises TrackingError if something did not arrive.

    report: called with the label of each run that is copied.
    """
    summary = CopySummary()
    with store_errors(target.uri):
        for run in _ended_runs(source):
            name = source.client.get_experiment(run.info.experiment_id).name
            experiment = target.experiment_id(name)
            if known := next(fetch_runs(target, f"tags.{tags.COPIED_FROM} = '{run.info.run_id}'", [experiment]), None):
                summary.ids[run.info.run_id] = known.info.run_id
                if tags.COPIED_WHOLE in known.data.tags:
                    summary.before += 1
                    models = zip(_models(source, run), _models(target, known), strict=True)
                    summary.model_ids |= {ours.model_id: theirs.model_id for ours, theirs in models}
                    continue
                target.client.delete_run(known.info.run_id)
            report(f"{run.info.run_name} ({run.info.run_id[:8]})")
            _copy_run(source, target, run, experiment, summary)
        _copy_registered(source, target, summary)
    return summary


def _ended_runs(store: Store) -> list[Run]:
    """Parents come before their children, whose tags hold the parent's id."""
    ended = fetch_runs(store, "attributes.status != 'RUNNING'")
    runs = [run for run in ended if tags.COPIED_FROM not in run.data.tags]
    return sorted(runs, key=lambda run: (run.info.start_time, tags.PARENT in run.data.tags))


def _copy_run(source: Store, target: Store, run: Run, experiment: str, summary: CopySummary) -> None:
    values = {key: summary.ids.get(value, value) if key in IDS else value for key, value in run.data.tags.items()}
    values[tags.COPIED_FROM] = run.info.run_id
    copy = target.client.create_run(experiment, run.info.start_time, values, run.info.run_name).info.run_id
    summary.ids[run.info.run_id] = copy
    params = [Param(key, value) for key, value in run.data.params.items()]
    points = [point for key in run.data.metrics for point in source.client.get_metric_history(run.info.run_id, key)]
    target.client.log_batch(copy, points, params)  # in as many calls as the server needs
    if run.inputs.dataset_inputs:
        target.client.log_inputs(copy, run.inputs.dataset_inputs)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(source.client.download_artifacts(run.info.run_id, "", folder))
        target.client.log_artifacts(copy, str(files))
        summary.files += _check_files(files, partial(target.client.download_artifacts, copy, ""), run.info.run_name)
    for model in _models(source, run):
        summary.model_ids[model.model_id] = _copy_model(target, model, experiment, copy)
        summary.models += 1
    _check_points(target, copy, run, points)
    target.client.set_terminated(copy, run.info.status, run.info.end_time)
    target.client.set_tag(copy, tags.COPIED_WHOLE, "true")
    summary.runs += 1
    summary.metrics += len(points)


def _models(store: Store, run: Run) -> list[LoggedModel]:
    outputs = run.outputs.model_outputs if run.outputs else []
    return [store.client.get_logged_model(output.model_id) for output in outputs]


def _copy_model(target: Store, model: LoggedModel, experiment: str, run_id: str) -> str:
    """Copies the files of a model. The ids of run and model in its description become those of the copies."""
    copy = target.client.create_logged_model(
        experiment, model.name, run_id, dict(model.tags), dict(model.params or {}), model.model_type
    )
    with tempfile.TemporaryDirectory() as folder:
        files = Path(mlflow.artifacts.download_artifacts(artifact_uri=model.artifact_location, dst_path=folder))
        description = Model.load(str(files))
        description.run_id, description.model_id = run_id, copy.model_id
        description.artifact_path = copy.artifact_location
        description.save(str(files / "MLmodel"))
        target.client.log_model_artifacts(copy.model_id, str(files))
        point_mlflow_at(target.uri)
        target.client.finalize_logged_model(copy.model_id, "READY")
        _check_files(files, partial(mlflow.artifacts.download_artifacts, f"models:/{copy.model_id}"), model.name)
    target.client.log_outputs(run_id, [LoggedModelOutput(copy.model_id, 0)])
    return str(copy.model_id)


def _copy_registered(source: Store, target: Store, summary: CopySummary) -> None:
    """Copies names, versions in their order, and aliases. Versions that were copied earlier stay."""
    for registered in iterate_pages(source.client.search_registered_models):
        name = registered.name
        try:
            target.client.get_registered_model(name)
        except MlflowException:
            target.client.create_registered_model(name, dict(registered.tags), registered.description)
        known = {version.run_id: version for version in list_versions(target, name)}
        numbers: dict[str, str] = {}
        for version in list_versions(source, name):
            run_id = summary.ids.get(version.run_id)
            model_id = summary.model_ids.get(str(version.source).removeprefix("models:/"))
            if run_id is None or model_id is None:
                continue
            if run_id not in known:
                known[run_id] = target.client.create_model_version(
                    name, f"models:/{model_id}", run_id, dict(version.tags), model_id=model_id
                )
                summary.versions += 1
            numbers[str(version.version)] = str(known[run_id].version)
        for alias, number in registered.aliases.items():
            if str(number) in numbers:
                target.client.set_registered_model_alias(name, alias, numbers[str(number)])


def _check_files(files: Path, fetch: Callable[..., str], name: str | None) -> int:
    """Compares all files with those that `fetch` brings back, byte by byte, and returns the number of files."""
    paths = sorted(str(path.relative_to(files)) for path in files.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as folder:
        same, changed, missing = filecmp.cmpfiles(files, fetch(dst_path=folder), paths, shallow=False)
    if changed or missing:
        rule = f"has files that did not arrive as sent: {', '.join(sorted(changed + missing)[:5])}"
        raise TrackingError(Problem(str(name), rule, remedy="copy again"))
    return len(same)


def _check_points(target: Store, copy: str, run: Run, points: list[Metric]) -> None:
    arrived = [point for key in run.data.metrics for point in target.client.get_metric_history(copy, key)]
    if _plain(arrived) != _plain(points) or target.client.get_run(copy).data.params != run.data.params:
        rule = f"has {len(points)} metrics, of which {len(arrived)} arrived"
        raise TrackingError(Problem(str(run.info.run_name), rule, remedy="copy again"))


def _plain(points: list[Metric]) -> set[tuple[str, int, float]]:
    return {(point.key, point.step, point.value) for point in points}
