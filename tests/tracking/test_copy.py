"""A local store carried to a server with proxied artifacts, again and after an interruption."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from services import Mlflow

import mnist_exp
from mnist_exp.errors import TrackingError
from mnist_exp.tracking import copy as copying
from mnist_exp.tracking.copy import copy_store
from mnist_exp.tracking.find import find_run, list_runs
from mnist_exp.tracking.registry import load_model
from mnist_exp.tracking.sqlite import DATABASE, create_database, uri_of
from mnist_exp.tracking.store import Store, open_store

SMALL = ("dataset=digits", "dataset.size=8", "model=mlp", "model.widths=[8]", "training.epochs=2")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two runs, the second registered as champion, and one that failed."""
    from mnist_exp.commands.promote import promote

    folder = tmp_path_factory.mktemp("source")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for seed in range(2):
            mnist_exp.run(*SMALL, f"seed={seed}", f"name=run-{seed}", quiet=True)
    store = open_store(None, folder / "mlruns")
    promote(store, "run-1", "net", force=False)
    failed = store.client.create_run(store.experiment_id("digits"), tags={"kind": "run"}, run_name="failed")
    store.client.set_terminated(failed.info.run_id, "FAILED")
    return store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    create_database(folder / DATABASE)
    with Mlflow(folder, uri_of(folder / DATABASE)) as found:
        yield found.uri


def facts(store: Store, name: str) -> tuple:
    run = store.client.get_run(find_run(store, name).id)
    history = {key: store.client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    points = {(key, point.step, point.timestamp, point.value) for key, several in history.items() for point in several}
    inputs = [(given.dataset.name, given.dataset.digest) for given in run.inputs.dataset_inputs]
    return run.data.params, points, inputs, run.info.status, run.info.start_time, run.info.end_time


@pytest.mark.parametrize("to", ["local", pytest.param("server", marks=pytest.mark.servers)])
def test_everything_arrives_once_and_the_champion_answers_there_too(
    source: Store, to: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    target = open_store(None if to == "local" else request.getfixturevalue("server"), tmp_path)
    first = copy_store(source, target)
    assert (first.runs, first.before, first.models, first.versions) == (3, 0, 2, 1)
    again = copy_store(source, target)
    assert (again.runs, again.before, again.versions) == (0, 3, 0)
    assert len(list_runs(target)) == 3
    for name in ("run-0", "run-1", "failed"):
        assert facts(source, name) == facts(target, name)
    champion = find_run(target, "models:/net@champion")
    assert champion.name == "run-1"
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype("uint8")
    ours = load_model(source.uri, find_run(source, "run-1").id)
    theirs = load_model(target.uri, champion.id)
    assert np.array_equal(ours.predict(images, verbose=0), theirs.predict(images, verbose=0))


def test_an_interrupted_copy_goes_on(source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_store(None, tmp_path / "mlruns")
    plain, models = copying._copy_model, []

    def interrupted(*args: object) -> str:
        models.append(args)
        if len(models) == 2:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(copying, "_copy_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        copy_store(source, target)
    monkeypatch.setattr(copying, "_copy_model", plain)
    done = copy_store(source, target)
    assert (done.runs, done.before, done.versions) == (2, 1, 1)
    assert sorted(run.name for run in list_runs(target)) == ["failed", "run-0", "run-1"]
    assert facts(source, "run-1") == facts(target, "run-1")


def test_what_arrives_changed_is_an_error(source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_store(None, tmp_path / "mlruns")
    plain = target.client.log_artifacts

    def damaged(run_id: str, folder: str) -> None:
        plain(run_id, folder)
        (tmp_path / "history.json").write_text("{}")
        target.client.log_artifact(run_id, str(tmp_path / "history.json"))

    monkeypatch.setattr(target.client, "log_artifacts", damaged)
    with pytest.raises(TrackingError, match=r"run-0 has files that did not arrive as sent: history\.json; copy again"):
        copy_store(source, target)
