"""Random stores, written with MLflow's client, and what it says about them with ids replaced by those of the origin."""

import math
import re
import shutil
from pathlib import Path

import mlflow
import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, Run, RunTag, ViewType

from mnist_exp.tracking.store import Store, open_store, point_mlflow_at

TEXTS = ["", "plain", "Grün 数字 🙂", "a'b\"c\\d%e\nf", "x" * 5000]
NUMBERS = [0.0, -1.5, math.nan, math.inf, -math.inf, 1e-300, 0.1]
MARKS = {"copied_from", "copied_whole", "copied_state"}
ID = re.compile(r"(?:m-)?\b[0-9a-f]{32}\b")


def new_store(template: Path, folder: Path) -> Store:
    """An empty store from a copy of a database: creating one takes a second."""
    folder.mkdir()
    shutil.copy(template, folder / "mlflow.db")
    return open_store(None, folder)


class Writer:
    """Writes to a store as runs and sweeps do, at random."""

    def __init__(self, store: Store, seed: int, scratch: Path) -> None:
        self.store, self.client, self.scratch = store, store.client, scratch
        self.random = np.random.default_rng(seed)
        self.runs: list[str] = []
        self.models: dict[str, str] = {}  # run and model

    def pick(self, values: list) -> object:
        return values[self.random.integers(len(values))]

    def write(self) -> None:
        """A new store: runs, a sweep or none, versions of a registered model or none."""
        names = ["digits", "Übung ÷ 2"][: 1 + int(self.random.integers(2))]
        for name in names:
            experiment = self.store.experiment_id(name)
            self.client.set_experiment_tag(experiment, "mlflow.note.content", str(self.pick(TEXTS)))
            for _ in range(self.random.integers(1, 3)):
                self.run(experiment, {"kind": "run"})
            if self.random.random() < 0.7:
                self.sweep(experiment)
        if self.models:
            self.versions("net")

    def change(self) -> None:
        """What may happen to a store between two copies."""
        for run_id in self.runs:
            run = self.client.get_run(run_id)
            if run.info.lifecycle_stage == "deleted":
                if self.random.random() < 0.5:
                    self.client.restore_run(run_id)
                continue
            if self.random.random() < 0.5:
                self.fill(run_id)
            if self.random.random() < 0.3 and (own := [key for key in run.data.tags if key.startswith("t")]):
                self.client.delete_tag(run_id, own[0])
            if self.random.random() < 0.2:
                self.client.update_run(run_id, name=f"renamed {self.random.integers(9)}")
            self.end(run_id)
        experiment = self.client.get_run(self.runs[0]).info.experiment_id
        self.run(experiment, {"kind": "run", "reproduces": self.runs[0]})
        if self.models:
            self.versions("net")

    def run(self, experiment: str, run_tags: dict[str, str]) -> str:
        start = int(self.random.integers(1_700_000_000_000, 1_800_000_000_000))
        run_id = self.client.create_run(experiment, start, run_tags, f"run {self.random.integers(9)}").info.run_id
        self.runs.append(run_id)
        params = [Param(f"p.{n}", str(self.pick([*TEXTS, "y" * 6000]))) for n in range(self.random.integers(0, 5))]
        self.client.log_batch(run_id, params=params)
        if self.random.random() < 0.5:
            data = Dataset("digits", f"{self.random.integers(2)}" * 8, "local", "here", profile='{"train": 3}')
            self.client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
        self.fill(run_id)
        if self.random.random() < 0.6:
            self.model(run_id)
        self.end(run_id)
        return run_id

    def fill(self, run_id: str) -> None:
        """More metrics, tags and files. The same step may be logged twice; a file may change and keep its size."""
        points = []
        for key in ("val/loss", "val/accuracy", "weird")[: self.random.integers(0, 4)]:
            for _ in range(self.random.integers(1, 12)):
                stamp = int(self.random.integers(1_700_000_000_000, 1_800_000_000_000))
                points.append(Metric(key, float(self.pick(NUMBERS)), stamp, int(self.random.integers(0, 5))))
        values = [RunTag(f"t{n}", str(self.pick(TEXTS))) for n in range(self.random.integers(0, 4))]
        values.append(RunTag(f"t{self.random.integers(9)}", f'["{self.pick(self.runs)}", 1]'))
        self.client.log_batch(run_id, points, tags=values)
        for n in range(self.random.integers(0, 3)):
            file = self.scratch / f"file {n}ü.txt"
            file.write_bytes(self.random.bytes(int(self.pick([0, 7, 7, 3000]))))
            self.client.log_artifact(run_id, str(file), str(self.pick(["", "a", "a/b c"])) or None)

    def model(self, run_id: str) -> None:
        experiment = self.client.get_run(run_id).info.experiment_id
        state = self.pick(["READY", "READY", "FAILED", "PENDING"])
        made = self.client.create_logged_model(
            experiment, "model", run_id, {"a": "b", "of": run_id}, {"c": "d"}, "keras"
        )
        if state == "READY":
            for name in ("MLmodel", "data.bin"):
                text = f"run_id: {run_id}\nmodel_id: {made.model_id}\nflavors: {{}}\n" if name == "MLmodel" else "bytes"
                (self.scratch / name).write_text(text)
                self.client.log_model_artifact(made.model_id, str(self.scratch / name))
            self.client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 3)])
            self.client.log_batch(run_id, [Metric("of/model", float(self.pick(NUMBERS)), 5, 1, model_id=made.model_id)])
            self.models[run_id] = made.model_id
        if state != "PENDING":
            self.client.finalize_logged_model(made.model_id, state)

    def end(self, run_id: str) -> None:
        state = self.pick(["FINISHED", "FINISHED", "FAILED", "KILLED", "RUNNING"])
        if state == "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
        else:
            self.client.set_terminated(run_id, state, int(self.random.integers(1_800_000_000_000, 1_900_000_000_000)))
        if self.random.random() < 0.1:
            self.client.delete_run(run_id)

    def sweep(self, experiment: str) -> None:
        """A parent whose tags name runs that came after it."""
        parent = self.client.create_run(experiment, tags={"kind": "sweep", "host": "here"}).info.run_id
        self.runs.append(parent)
        for number in range(self.random.integers(1, 4)):
            place = {"kind": "trial", "trial": str(number), "sweep": parent, "mlflow.parentRunId": parent}
            trial = self.run(experiment, place)
            if self.random.random() < 0.5 and self.client.get_run(trial).info.lifecycle_stage == "active":
                nested = self.run(experiment, {"kind": "execution", "mlflow.parentRunId": trial})
                self.client.set_tag(trial, "model_run", nested)
        self.client.log_param(parent, f"owner/{self.random.integers(9)}", "token")
        self.client.log_batch(parent, tags=[RunTag("best_run", trial), RunTag("tested", trial)])

    def versions(self, name: str) -> None:
        """Versions, some of them deleted, and aliases that move."""
        known = [model.name for model in self.client.search_registered_models()]
        if name not in known:
            self.client.create_registered_model(name, {"of": str(self.pick(self.runs))}, "Grün")
        point_mlflow_at(self.store.uri)
        for _ in range(self.random.integers(1, 5)):
            run_id = str(self.pick(list(self.models)))
            values, model_id = {"against": run_id}, self.models[run_id]
            self.client.create_model_version(
                name, f"models:/{model_id}", run_id, values, model_id=model_id, description="é"
            )
        found = [version.version for version in self.client.search_model_versions(f"name = '{name}'")]
        for number in found[1:]:
            if self.random.random() < 0.3:
                self.client.delete_model_version(name, number)
        alive = [version.version for version in self.client.search_model_versions(f"name = '{name}'")]
        for alias in ("champion", "old"):
            if self.random.random() < 0.7:
                self.client.set_registered_model_alias(name, alias, str(self.pick(alive)))
            elif alias in self.client.get_registered_model(name).aliases:
                self.client.delete_registered_model_alias(name, alias)


def describe(store: Store) -> dict:
    """Everything that MLflow's client tells about a store; each id is that of the run or model it was copied from."""
    client, origins = store.client, {}
    experiments = {one.experiment_id: one for one in client.search_experiments()}
    runs = client.search_runs(list(experiments), run_view_type=ViewType.ALL, max_results=50_000)
    models = client.search_logged_models(list(experiments))
    for own, values in [(run.info.run_id, run.data.tags) for run in runs] + [
        (one.model_id, one.tags) for one in models
    ]:
        origins[own] = values.get("copied_from", own)
    assert len(set(origins.values())) == len(origins), "something was copied twice"

    def plain(text: str | None) -> str | None:
        return text and ID.sub(lambda found: origins.get(found[0], found[0]), text)

    def plain_tags(values: dict) -> dict:
        return {key: plain(value) for key, value in values.items() if key not in MARKS}

    def files(uri: str) -> dict:
        root = Path(uri.removeprefix("file://")) if uri.startswith("file:") else Path(uri)
        found = mlflow.artifacts.list_artifacts(artifact_uri=uri)
        local = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri)) if found else root
        paths = [path for path in local.rglob("*") if path.is_file() and path.name != "registered_model_meta"]
        return {str(path.relative_to(local)): plain_model(path) for path in paths}

    def plain_model(path: Path) -> object:
        if path.name != "MLmodel":
            return path.read_bytes()
        lines = [line for line in path.read_text().splitlines() if line.startswith(("run_id", "model_id"))]
        return sorted(plain(line) or "" for line in lines)

    def points(run: Run) -> list:
        history = [point for key in run.data.metrics for point in client.get_metric_history(run.info.run_id, key)]
        return sorted((point.key, point.step, point.timestamp, repr(point.value)) for point in history)

    return {
        "experiments": {
            one.name: {key: value for key, value in one.tags.items() if key not in MARKS | {"mlflow.experimentKind"}}
            for one in experiments.values()
        },
        "runs": {
            origins[run.info.run_id]: [
                experiments[run.info.experiment_id].name, run.info.run_name, run.info.status, run.info.start_time,
                run.info.end_time, run.info.lifecycle_stage, run.data.params, plain_tags(run.data.tags), points(run),
                {key: repr(value) for key, value in run.data.metrics.items()},
                [(one.dataset.to_dictionary(), [tag.value for tag in one.tags]) for one in run.inputs.dataset_inputs],
                [(plain(one.model_id), one.step) for one in (run.outputs.model_outputs if run.outputs else [])],
                files(run.info.artifact_uri),
            ]
            for run in runs
        },
        "models": {
            origins[one.model_id]: [
                one.name, plain(one.source_run_id), str(one.status), one.model_type, one.params, plain_tags(one.tags),
                sorted((point.key, point.step, point.timestamp, repr(point.value)) for point in one.metrics or []),
                files(one.artifact_location),
            ]
            for one in models
        },
        "registered": {
            one.name: [
                one.description, plain_tags(one.tags), one.aliases,
                {
                    version.version: [
                        plain(version.source), plain(version.run_id), version.description, plain_tags(version.tags),
                        version.status, sorted(version.aliases),
                    ]
                    for version in client.search_model_versions(f"name = '{one.name}'")
                },
            ]
            for one in client.search_registered_models()
        },
    }  # fmt: skip
