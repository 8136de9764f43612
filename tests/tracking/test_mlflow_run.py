import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from omegaconf import OmegaConf

import mnist_exp
from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.data.load import load_splits
from mnist_exp.evaluation.predictions import digests_of
from mnist_exp.experiment import Listener, run
from mnist_exp.tracking import outbox
from mnist_exp.tracking.active_run import Input
from mnist_exp.tracking.find import find_run
from mnist_exp.tracking.mlflow_run import MlflowRun
from mnist_exp.tracking.store import Store, open_store, point_mlflow_at

SMALL = ("training=smoke", "model.widths=[8]", "dataset.limit=300")
History = Callable[..., list[tuple[int, float]]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A run in the local store below the folder the command was started in, asked about from another folder."""
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        result = mnist_exp.run(*SMALL, "name=mine", quiet=True)
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
        found = client.get_run(result.run_id)
        kept = folder / "mlruns" / "artifacts" / "digits" / found.info.run_id / "artifacts"
        yield SimpleNamespace(folder=folder, result=result, client=client, run=found, artifacts=kept)


def test_the_local_store_lies_in_mlruns_under_absolute_paths(done: SimpleNamespace) -> None:
    assert {path.name for path in done.folder.iterdir()} == {"mlruns"}
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in (done.folder / "mlruns").iterdir()} == {
        "mlflow.db",
        "mlflow.lock",
        "artifacts",
    }
    assert done.result.uri == f"sqlite:///{done.folder}/mlruns/mlflow.db"
    assert done.run.info.artifact_uri == done.artifacts.as_uri()
    assert done.run.data.tags["folder"].startswith(f"{done.folder}/mlruns/running/mine-")


def test_a_finished_run(done: SimpleNamespace) -> None:
    assert (done.run.info.status, done.run.info.run_name, done.result.undelivered) == ("FINISHED", "mine", None)
    tags = done.run.data.tags
    assert (tags["kind"], tags["host"], tags["pid"]) == ("run", socket.gethostname(), str(os.getpid()))
    assert (tags["used_epoch"], tags["parameters"], tags["compiled_epoch"]) == (
        "2",
        str(784 * 8 + 8 + 8 * 10 + 10),
        "xla",
    )
    assert {"version.keras", "version.mlflow", "hardware.cores", "command"} <= tags.keys()
    assert "error" not in tags
    assert f"{done.result.metrics['test/accuracy']:.2%}" in tags["mlflow.note.content"]


def test_params_are_choices_and_flattened_config(done: SimpleNamespace) -> None:
    params = done.run.data.params
    assert {group: params[group] for group in ("dataset", "model", "optimizer", "training", "tracking")} == {
        "dataset": "digits",
        "model": "mlp",
        "optimizer": "adam",
        "training": "smoke",
        "tracking": "mlflow",
    }
    assert (params["model.widths"], params["training.epochs"], params["seed"]) == ("[8]", "2", "0")
    assert params["training.class_weight"] == "None"


def test_metrics_of_each_epoch_and_the_result(done: SimpleNamespace) -> None:
    def steps(key: str) -> list[int]:
        return sorted({metric.step for metric in done.client.get_metric_history(done.run.info.run_id, key)})

    assert [steps(key) for key in ("train/loss", "train/accuracy", "val/loss", "learning_rate")] == [[1, 2]] * 4
    history = done.client.get_metric_history(done.run.info.run_id, "train/loss")
    assert [metric.value for metric in history] == done.result.history["loss"]
    assert steps("test/accuracy") == [0]
    kept = {key: done.run.data.metrics[key] for key in done.result.metrics}
    assert kept == pytest.approx(done.result.metrics, abs=1e-5)
    assert (
        len(done.client.get_metric_history(done.run.info.run_id, "val/accuracy")) == 2
    )  # the result is not said twice


def test_the_data_set_is_an_input(done: SimpleNamespace) -> None:
    (given,) = done.run.inputs.dataset_inputs
    digest = load_splits(check(compose(SMALL))).digest
    assert (given.dataset.name, given.dataset.digest) == ("digits", digest[:32])
    assert done.run.data.params["dataset.digest"] == digest
    assert json.loads(given.dataset.profile)["test"] == 300
    assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]


def test_the_config_is_kept_as_composed(done: SimpleNamespace) -> None:
    config = check(compose([*SMALL, "name=mine"]))
    assert OmegaConf.to_container(OmegaConf.load(done.artifacts / "config.yaml")) == config.recorded


def test_the_predictions_lead_to_the_metrics(done: SimpleNamespace) -> None:
    splits = load_splits(check(compose(SMALL)))
    with np.load(done.artifacts / "predictions.npz") as kept:
        for name, part in (("val", splits.validation), ("test", splits.test)):
            assert np.array_equal(kept[f"{name}_labels"], part.labels)
            assert np.array_equal(kept[f"{name}_digests"], digests_of(part))
            assert np.allclose(kept[f"{name}_probabilities"].sum(axis=1, dtype=np.float64), 1, atol=5e-3)
            right = (kept[f"{name}_predicted"] == kept[f"{name}_labels"]).mean()
            assert right == pytest.approx(done.result.metrics[f"{name}/accuracy"])


def test_the_model_takes_raw_pixels_without_our_code(done: SimpleNamespace) -> None:
    import mlflow

    images = load_splits(check(compose(SMALL))).test.images[:50]
    point_mlflow_at(done.result.uri)
    uri = f"runs:/{done.result.run_id}/model"
    probabilities = mlflow.pyfunc.load_model(uri).predict(images)
    assert np.allclose(probabilities, mlflow.keras.load_model(uri).predict(images, verbose=0), atol=1e-6)
    assert np.allclose(probabilities, done.result.load_model().predict(images, verbose=0), atol=1e-6)
    with np.load(done.artifacts / "predictions.npz") as kept:
        assert np.array_equal(kept["test_predicted"][:50], probabilities.argmax(axis=1))
    info = mlflow.models.get_model_info(uri)
    assert info.metadata["class_names"] == list("0123456789")
    assert [(pixels.type, pixels.shape) for pixels in info.signature.inputs] == [(np.dtype("uint8"), (-1, 28, 28, 1))]
    required = Path(mlflow.pyfunc.get_model_dependencies(uri)).read_text().split()
    assert [line.partition("==")[0] for line in required] == ["keras", "tensorflow", "numpy", "mlflow"]


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a store be away: each call of a method but the first `good` fails, until `calls` more have failed."""
    monkeypatch.setattr(outbox, "PAUSE", 0)

    def begin(store: Store, method: str, good: int = 0, calls: int = 1000) -> None:
        works = getattr(store.client, method)
        counted = iter(range(good + calls))

        def failing(*args: object, **keys: object) -> object:
            number = next(counted, None)
            if number is None or number < good:
                return works(*args, **keys)
            answers = iter([MlflowException("the store is away")])  # to the probe that follows
            monkeypatch.setattr(store.client, "get_run", lambda run_id: fail_once(answers, run_id))
            raise MlflowException("the store is away")

        def fail_once(failures: Iterator[Exception], run_id: str) -> object:
            if failure := next(failures, None):
                raise failure
            return asks(run_id)

        asks = store.client.get_run
        monkeypatch.setattr(store.client, method, failing)

    return begin


def test_calls_wait_in_order_until_the_store_is_back(
    store: Store, record: MlflowRun, outage: Callable[..., None], history: History
) -> None:
    outage(store, "log_batch", good=2, calls=3)
    for epoch in range(1, 8):
        record.log_metrics({"train/loss": 1 / epoch, "val/loss": 2 / epoch}, step=epoch)
        recorded = [step for step, _ in history(record.id, "train/loss")]
        assert recorded == list(range(1, 1 + (epoch if epoch > 5 else min(epoch, 2))))
        assert bool(record.undelivered) == (2 < epoch < 6)
    record.end("FINISHED")
    assert history(record.id, "train/loss") == [(epoch, 1 / epoch) for epoch in range(1, 8)]
    assert history(record.id, "val/loss") == [(epoch, 2 / epoch) for epoch in range(1, 8)]
    assert find_run(store, "mine").status == "FINISHED"
    assert not record.folder.exists()


def test_a_call_that_failed_after_it_took_effect_is_not_doubled(
    store: Store, record: MlflowRun, monkeypatch: pytest.MonkeyPatch, history: History
) -> None:
    monkeypatch.setattr(outbox, "PAUSE", 0)
    works, failures = store.client.log_batch, iter([MlflowException("no answer")] * 2)

    def answer_lost(*args: object, **keys: object) -> None:
        works(*args, **keys)
        if failure := next(failures, None):
            raise failure

    monkeypatch.setattr(store.client, "log_batch", answer_lost)
    record.log_params({"seed": 0})
    record.log_input(Input("digits", "abc", "shipped", {}))
    record.log_metrics({"train/loss": 0.5}, step=1)
    record.end("FINISHED")
    assert history(record.id, "train/loss") == [(1, 0.5)]
    found = store.client.get_run(record.id)
    assert (found.data.params, len(found.inputs.dataset_inputs)) == ({"seed": "0"}, 1)


def test_a_store_that_is_away_is_not_asked_at_every_step(
    store: Store, record: MlflowRun, monkeypatch: pytest.MonkeyPatch, history: History
) -> None:
    asked = []

    def away(*args: object, **keys: object) -> None:
        asked.append(args)
        raise MlflowException("the store is away")

    with monkeypatch.context() as during:
        during.setattr(store.client, "log_batch", away)
        during.setattr(store.client, "get_run", lambda run_id: away())
        for epoch in range(1, 5):
            record.log_metrics({"train/loss": 0.5}, step=epoch)
    assert len(asked) == 2  # the call and a probe
    record.end("FINISHED")  # tries again at once
    assert [step for step, _ in history(record.id, "train/loss")] == [1, 2, 3, 4]


@pytest.mark.parametrize("damage", ["deleted", "replaced", "overwritten"])
def test_a_database_lost_on_the_way(folder: Path, new_database: Path, damage: str) -> None:
    store = open_store(None, folder)
    record = MlflowRun.create_run(store, folder, "digits", "mine")
    record.log_metrics({"train/loss": 0.5}, step=1)
    (record.artifacts / "note.txt").write_text("kept")
    database = folder / "mlflow.db"
    if damage == "overwritten":
        database.write_bytes(b"garbage " * 1000)
    else:
        for path in folder.glob("mlflow.db*"):
            path.unlink()
        if damage == "replaced":
            shutil.copy(new_database, folder / "other.db")
            (folder / "other.db").rename(database)
    record.log_metrics({"train/loss": 0.25}, step=2)
    record.end("FINISHED")
    assert record.undelivered == str(record.folder)
    lines = [json.loads(line) for line in (record.folder / "record.jsonl").read_text().splitlines()]
    assert [line["values"]["step"] for line in lines if line["kind"] == "metrics"] == [1, 2]
    assert (record.artifacts / "note.txt").read_text() == "kept"
    assert database.exists() == (damage != "deleted"), "nothing is put in its place"


def test_training_goes_on_without_the_store(
    tmp_path: Path, new_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(new_database, folder)

    class Removing(Listener):
        def on_epoch(self, epoch: int, metrics: object) -> None:
            if epoch == 1:
                (folder / "mlflow.db").rename(tmp_path / "away.db")

    result = run(check(compose([*SMALL, f"tracking.folder={folder}", "name=mine"])), Removing())
    (kept,) = (folder / "running").iterdir()
    assert result.undelivered == str(kept)
    assert len(result.history["loss"]) == 2
    lines = [json.loads(line) for line in (kept / "record.jsonl").read_text().splitlines()]
    assert [line["values"]["step"] for line in lines if "train/loss" in line["values"]] == [1, 2]
    assert [line["values"] for line in lines if "test/accuracy" in line["values"]] == [
        {**{key: value for key, value in result.metrics.items() if key.startswith("test/")}, "step": 0}
    ]
    assert {"config.yaml", "predictions.npz", "figures", "reports"} <= set(os.listdir(kept / "artifacts"))
    images = load_splits(check(compose(SMALL))).test.images
    with np.load(kept / "artifacts" / "predictions.npz") as predictions:
        model = keras.models.load_model(kept / "model" / "data" / "model.keras")
        assert np.array_equal(model.predict(images, verbose=0).argmax(axis=1), predictions["test_predicted"])


def test_keys_that_mlflow_does_not_take(store: Store, record: MlflowRun) -> None:
    record.log_params({"model.map.a@b": 1, "seed": 0, "x" * 300: 2, "long": "y" * 7000})
    record.log_params({f"key{number}": number for number in range(230)})
    assert record.undelivered is None
    params = find_run(store, "mine").params
    assert (params["model.map.a_b"], params["seed"], params["x" * 250]) == ("1", "0", "2")
    assert params["long"] == "y" * 6000
    assert len(params) == 234


def test_a_model_whose_upload_failed_is_there_once(
    store: Store, record: MlflowRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    works, failures = store.client.finalize_logged_model, iter([OSError("no answer")])

    def failing(*args: object, **keys: object) -> object:
        if failure := next(failures, None):
            raise failure
        return works(*args, **keys)

    monkeypatch.setattr(store.client, "finalize_logged_model", failing)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), dtype=np.uint8)
    again = record.log_model(model, {"class_names": ["a", "b", "c"]})
    assert record.undelivered
    assert np.array_equal(again.predict(pixels, verbose=0), model.predict(pixels, verbose=0))
    record.end("FINISHED")
    assert record.undelivered is None
    found = store.client.search_logged_models([store.experiment_id("digits")], "name = 'model'")
    assert [logged.source_run_id for logged in found] == [record.id]
    from mnist_exp.tracking.registry import load_model

    loaded = load_model(store.uri, record.id)
    assert np.array_equal(loaded.predict(pixels, verbose=0), model.predict(pixels, verbose=0))


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
@pytest.mark.parametrize("saved", [False, True])
def test_a_run_that_stopped_keeps_its_folder_only_to_be_resumed(
    store: Store, record: MlflowRun, status, saved: bool
) -> None:
    record.log.write_text("what the libraries said")
    if saved:
        record.checkpoints.mkdir()
        (record.checkpoints / "state.json").write_text("{}")
    record.end(status, "ValueError: " + "x" * 5000)
    found = find_run(store, "mine")
    assert (found.status, record.folder.exists()) == (status, saved)
    assert found.tags["error"] == ("ValueError: " + "x" * 5000)[:4000]
    assert [file.path for file in store.client.list_artifacts(record.id)] == ["run.log"]


def test_a_resumed_run_logs_again_what_it_repeats_but_once(
    store: Store, record: MlflowRun, folder: Path, history: History
) -> None:
    for epoch in (1, 2, 3):
        record.log_metrics({"train/loss": 1 / epoch, "wall_seconds/elapsed": epoch}, step=epoch)
    record.log_metrics({"test/loss": 0.5, "test/accuracy": 0.75}, step=0)
    record.checkpoints.mkdir()
    (record.checkpoints / "state.json").write_text("{}")
    (record.artifacts / "traceback.txt").write_text("of another end")
    record.end("FAILED", "ValueError: it broke")
    resumed = MlflowRun.resume_run(store, record.id)
    resumed.log_metrics(
        {"train/loss": 1 / 3, "wall_seconds/elapsed": 9.5}, step=3
    )  # trained again, from the checkpoint before
    resumed.log_metrics({"train/loss": 1 / 4, "wall_seconds/elapsed": 10.5}, step=4)
    resumed.log_metrics({"test/loss": 0.25, "test/accuracy": 0.75}, step=0)
    resumed.end("FINISHED")
    assert history(record.id, "train/loss") == [(1, 1.0), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)]
    assert history(record.id, "wall_seconds/elapsed") == [(1, 1), (2, 2), (3, 3), (4, 10.5)]
    assert history(record.id, "test/accuracy") == [(0, 0.75)]
    found = find_run(store, "mine")
    assert (found.status, found.metrics["test/loss"]) == ("FINISHED", 0.25)
    assert "error" not in found.tags
    assert not record.folder.exists()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "kept")]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(requests.RequestException):
                if requests.get(f"{address}/health", timeout=5).ok:
                    break
            time.sleep(0.1)
        else:
            pytest.fail((folder / "server.log").read_text())
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            os.killpg(process.pid, signal.SIGKILL)  # what did not hear
        process.wait(timeout=30)


@pytest.mark.servers
def test_a_run_on_a_server(server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = mnist_exp.run(*SMALL, f"tracking.uri={server}", f"tracking.folder={tmp_path}/mlruns")
    assert "View run" not in capfd.readouterr().out
    assert (result.uri, result.undelivered) == (server, None)
    client = MlflowClient(server)
    found = client.get_run(result.run_id)
    assert found.info.status == RunStatus.to_string(RunStatus.FINISHED)
    assert found.data.metrics["test/accuracy"] == result.metrics["test/accuracy"]
    assert [metric.step for metric in client.get_metric_history(result.run_id, "train/loss")] == [1, 2]
    assert found.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert {"config.yaml", "predictions.npz", "figures"} <= {file.path for file in client.list_artifacts(result.run_id)}
    config = OmegaConf.load(client.download_artifacts(result.run_id, "config.yaml", str(tmp_path)))
    assert config.tracking.uri == server
    images = load_splits(check(compose(SMALL))).test.images
    predictions = np.load(client.download_artifacts(result.run_id, "predictions.npz", str(tmp_path)))
    answered = result.load_model().predict(images, verbose=0).argmax(axis=1)
    assert np.array_equal(answered, predictions["test_predicted"])
    assert list((tmp_path / "mlruns").iterdir()) == [], "the server has it all"
