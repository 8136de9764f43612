"""What the store refuses or misses: set aside, kept on disk, delivered later, and never twice."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from mnist_exp.errors import TrackingError
from mnist_exp.tracking import tags
from mnist_exp.tracking.active_run import running_folders
from mnist_exp.tracking.find import find_run
from mnist_exp.tracking.mlflow_run import MlflowRun
from mnist_exp.tracking.outbox import Outbox, deliver_runs, read_state, remove_dead_trials
from mnist_exp.tracking.registry import load_model
from mnist_exp.tracking.store import Store

History = Callable[..., list[tuple[int, float]]]
DEAD = {"pid": "999999999", "started": "1.0"}


def go_away(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    def away(*args: object, **keys: object) -> None:
        raise MlflowException("the store is away")

    for method in ("log_batch", "get_run", "log_artifacts", "set_terminated", "log_inputs"):
        monkeypatch.setattr(store.client, method, away)


def pretend_dead(store: Store, record: MlflowRun) -> None:
    """Makes the process that writes the run one that is gone."""
    record._outbox.take(DEAD)
    store.set_tags(record.id, DEAD)


def artifact_folder(store: Store, record: MlflowRun) -> Path:
    return Path(urlsplit(store.client.get_run(record.id).info.artifact_uri).path)


def test_a_call_that_is_always_refused_delays_no_other(
    store: Store, record: MlflowRun, folder: Path, history: History
) -> None:
    place = artifact_folder(store, record)
    place.parent.mkdir(parents=True)
    place.write_text("a file where the folder of artifacts would be")
    record.log_artifacts()
    record.log_metrics({"train/loss": 0.5}, step=1)
    assert history(record.id, "train/loss") == [(1, 0.5)]
    (record.artifacts / "note.txt").write_text("kept")
    record.end("FINISHED")
    assert find_run(store, "mine").status == "FINISHED"
    (refused,) = record.refused
    assert refused.startswith("artifacts (")
    assert record.undelivered == str(record.folder)
    (still,) = deliver_runs(store, folder)
    assert (still.delivered, still.refused, still.is_whole) == (0, (refused,), False)
    place.unlink()
    (done,) = deliver_runs(store, folder)
    assert (done.name, done.status, done.delivered, done.is_whole) == ("mine", "FINISHED", 1, True)
    assert [file.path for file in store.client.list_artifacts(record.id)] == ["note.txt"]
    assert not record.folder.exists()
    assert deliver_runs(store, folder) == []


def test_one_refused_parameter_costs_no_other(store: Store, record: MlflowRun) -> None:
    record.log_params({"seed": 0})
    record.log_params({"seed": 1, "model.widths": [8], "epochs": 3})  # MLflow keeps the first value
    assert find_run(store, "mine").params == {"seed": "0", "model.widths": "[8]", "epochs": "3"}
    (refused,) = record.refused
    assert refused.startswith("params (")


def test_one_metric_that_is_refused_keeps_the_time_of_the_others(
    store: Store, record: MlflowRun, history: History
) -> None:
    record.log_metrics({"train/loss": 0.5, "no such: name?": 1.0, "val/loss": 0.25}, step=1)
    assert history(record.id, "train/loss") == [(1, 0.5)]
    points = [store.client.get_metric_history(record.id, key)[0] for key in ("train/loss", "val/loss")]
    assert points[0].timestamp == points[1].timestamp
    assert len(record.refused) == 1


def test_what_a_killed_process_has_not_sent_is_delivered_once(
    store: Store, record: MlflowRun, folder: Path, monkeypatch: pytest.MonkeyPatch, history: History
) -> None:
    record.log_metrics({"train/loss": 1.0}, step=1)
    with monkeypatch.context() as during:
        go_away(during, store)
        record.log_params({"seed": 0})
        for epoch in (2, 3):
            record.log_metrics({"train/loss": 1 / epoch}, step=epoch)
    with (record.folder / "record.jsonl").open("a") as lines:
        lines.write('{"kind": "metrics", "time": 1')  # killed while it wrote
    assert deliver_runs(store, folder) == [], "its process lives"
    with pytest.raises(TrackingError, match=r"mine \(.*\) is being written on .*; deliver it when it has ended"):
        deliver_runs(store, folder, ["mine"])
    pretend_dead(store, record)
    (done,) = deliver_runs(store, folder, [record.id[:8]])
    assert (done.status, done.delivered, done.is_whole) == ("KILLED", 3, True)
    assert history(record.id, "train/loss") == [(1, 1.0), (2, 1 / 2), (3, 1 / 3)]
    assert find_run(store, "mine").params == {"seed": "0"}
    with pytest.raises(TrackingError, match=r"mine is not a run with calls to deliver in"):
        deliver_runs(store, folder, ["mine"])


def test_a_process_killed_between_the_answer_and_its_note_doubles_nothing(
    store: Store, record: MlflowRun, folder: Path, history: History
) -> None:
    before = (record.folder / "outbox.json").read_text()
    record.log_params({"seed": 0})
    for epoch in (1, 2):
        record.log_metrics({"train/loss": 1 / epoch, "val/loss": float("nan")}, step=epoch)
    (record.folder / "outbox.json").write_text(before)
    pretend = Outbox.open(store, record.folder, record.id)
    pretend.take(DEAD)
    store.set_tags(record.id, DEAD)
    (done,) = deliver_runs(store, folder)
    assert (done.delivered, done.is_whole) == (3, True)
    assert history(record.id, "train/loss") == [(1, 1.0), (2, 0.5)]
    assert len(history(record.id, "val/loss")) == 2


def test_a_record_of_the_version_before_is_delivered_too(
    store: Store, record: MlflowRun, folder: Path, history: History
) -> None:
    record.log_metrics({"train/loss": 1.0}, step=1)
    lines = [json.loads(line) for line in (record.folder / "record.jsonl").read_text().splitlines()]
    lines = [{**line, "time": line["time"] - 0.01} for line in lines]  # it noted another time than it sent
    lines.append({"kind": "metrics", "time": 2.0, "values": {"train/loss": 0.5, "step": 2}})
    (record.folder / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (record.folder / "outbox.json").unlink()
    (record.artifacts / "note.txt").write_text("kept")
    store.set_tags(record.id, DEAD)
    (done,) = deliver_runs(store, folder)
    assert (done.status, done.is_whole) == ("KILLED", True)
    assert sorted(history(record.id, "train/loss")) == [(1, 1.0), (2, 0.5)]
    assert [file.path for file in store.client.list_artifacts(record.id)] == ["note.txt"]


def test_a_resumed_run_first_sends_what_the_process_before_has_not(
    store: Store, record: MlflowRun, monkeypatch: pytest.MonkeyPatch, history: History
) -> None:
    record.checkpoints.mkdir()
    (record.checkpoints / "state.json").write_text("{}")
    with monkeypatch.context() as during:
        go_away(during, store)
        record.log_metrics({"train/loss": 1.0}, step=1)
    pretend_dead(store, record)
    resumed = MlflowRun.resume_run(store, "mine")
    resumed.log_metrics({"train/loss": 0.5}, step=2)
    resumed.end("FINISHED")
    assert history(record.id, "train/loss") == [(1, 1.0), (2, 0.5)]
    assert not record.folder.exists()


@pytest.fixture
def model() -> Any:
    import keras

    return keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])


@pytest.fixture
def with_model(store: Store, record: MlflowRun, model: Any, monkeypatch: pytest.MonkeyPatch) -> MlflowRun:
    """A run whose model the store has refused."""

    def refuse(*args: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as during:
        during.setattr(store.client, "log_model_artifacts", refuse)
        record.log_model(model, {"class_names": ["a", "b", "c"]})
    assert record.refused == ("model (no space left on device)",)
    return record


def test_a_model_is_delivered_without_the_process_that_trained_it(
    store: Store, with_model: MlflowRun, model: Any, folder: Path
) -> None:
    pretend_dead(store, with_model)
    (done,) = deliver_runs(store, folder)
    assert (done.delivered, done.is_whole) == (1, True)
    found, pixels = load_model(store.uri, with_model.id), np.zeros((2, 4, 4, 1), np.uint8)
    assert np.array_equal(found.predict(pixels, verbose=0), model.predict(pixels, verbose=0))


@pytest.mark.parametrize(("kind", "left"), [("trial", False), ("execution", False), ("run", True)])
def test_only_the_folder_of_a_dead_run_outlives_it(store: Store, folder: Path, kind: str, left: bool) -> None:
    record = MlflowRun.create_run(store, folder, "digits", "mine", {tags.KIND: kind})
    record.checkpoints.mkdir()
    (record.checkpoints / "state.json").write_text("{}")
    remove_dead_trials(folder)
    assert record.folder.exists(), "its process lives"
    record._outbox.take(DEAD)
    MlflowRun.create_run(store, folder, "digits", "next")  # every run cleans up
    assert record.folder.exists() == left


def test_calls_of_a_dead_trial_are_kept_without_its_checkpoints(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = MlflowRun.create_run(store, folder, "digits", "mine", {tags.KIND: "trial"})
    record.checkpoints.mkdir()
    with monkeypatch.context() as during:
        go_away(during, store)
        record.log_metrics({"score": 1.0}, step=0)
    pretend_dead(store, record)
    remove_dead_trials(folder)
    assert (record.folder / "record.jsonl").exists()
    assert not record.checkpoints.exists()
    (done,) = deliver_runs(store, folder)
    assert (done.is_whole, record.folder.exists()) == (True, False)


def test_killed_while_it_describes_the_model_a_run_can_still_deliver_it(
    store: Store, with_model: MlflowRun, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.models import Model

    def killed(self: Model, path: str) -> None:
        Path(path).write_text("")  # opened for writing, and nothing written yet
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(Model, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            with_model._outbox.retry_refused()
    pretend_dead(store, with_model)
    (done,) = deliver_runs(store, folder)
    assert done.is_whole
    assert load_model(store.uri, with_model.id).output_shape == (None, 3)


def test_a_call_whose_own_files_are_broken_is_refused_and_delays_no_other(
    store: Store, with_model: MlflowRun, folder: Path, history: History
) -> None:
    (with_model.folder / "model" / "MLmodel").write_text("")
    with_model.log_metrics({"train/loss": 0.5}, step=1)
    with_model.end("FINISHED")
    assert history(with_model.id, "train/loss") == [(1, 0.5)]
    (still,) = deliver_runs(store, folder)
    assert [refused.partition(" ")[0] for refused in still.refused] == ["model"]
    with pytest.raises(TrackingError, match="has no model in the store; if its process could not deliver it"):
        load_model(store.uri, with_model.id)


@pytest.mark.parametrize("act", [remove_dead_trials, running_folders], ids=["clean", "list"])
def test_the_last_other_run_may_end_while_the_folders_are_listed(folder: Path, monkeypatch, act) -> None:
    """It removes the folder around them. A trial that began at this moment failed."""
    running = folder / "running"
    running.mkdir(parents=True)

    def ended_before(scan: Callable[..., Any]) -> Callable[..., Any]:
        def run(place: Any = ".") -> Any:
            if running.is_dir() and Path(os.fsdecode(place)) == running:
                running.rmdir()
            return scan(place)

        return run

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, ended_before(getattr(os, name)))
    assert not act(folder)
    assert not running.exists()


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_a_trial_that_ends_without_a_score_leaves_no_folder(store: Store, folder: Path, status) -> None:
    run_id = store.client.create_run(store.experiment_id("digits")).info.run_id
    active = MlflowRun.take_over_run(store, folder, run_id, "mine-000")
    active.checkpoints.mkdir()
    (active.checkpoints / "state.json").write_text("{}")
    assert not active.resumable
    active.end(status, "ValueError: it broke")
    assert not (folder / "running").exists()


def test_an_experiment_of_61_cyrillic_letters_has_a_folder(store: Store, folder: Path) -> None:
    name = "ж" * 61
    record = MlflowRun.create_run(store, folder, name, "mine")
    (record.artifacts / "note.txt").write_text("kept")
    record.log_artifacts()
    record.end("FINISHED")
    assert record.undelivered is None
    assert [file.path for file in store.client.list_artifacts(record.id)] == ["note.txt"]
    assert len({artifact_folder(store, record).parent.parent, folder / "artifacts"}) == 2
    assert store.experiment_id(name) == store.client.get_run(record.id).info.experiment_id
    assert store.experiment_id(name + "ж") != store.experiment_id(name)


def test_an_experiment_whose_folder_cannot_be_made_is_refused_before_training(store: Store, folder: Path) -> None:
    store.client.create_experiment("old", f"file://{folder}/artifacts/{'x' * 300}")
    with pytest.raises(TrackingError, match=r"tracking.experiment must be .* \(File name too long\), but got 'old'"):
        MlflowRun.create_run(store, folder, "old", "mine")
    assert not (folder / "running").exists() or not list((folder / "running").iterdir())


def test_the_state_names_the_run_and_its_process(record: MlflowRun) -> None:
    state = read_state(record.folder)
    assert (state["run"], state["sent"], state["refused"]) == (record.id, 0, [])
    assert state["facts"]["kind"] == "run"
    shutil.rmtree(record.folder)
    assert read_state(record.folder) == {}
