"""A local store carried to a server with proxied artifacts, again and after an interruption."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import at_call, call, die
from random_stores import Writer, describe, new_store
from services import Mlflow
from sqlalchemy.engine.default import DefaultDialect

import mnist_exp
from mnist_exp.errors import TrackingError
from mnist_exp.tracking.active_run import STATE
from mnist_exp.tracking.copy import copy_store
from mnist_exp.tracking.find import SWEEPS, find_run, list_runs
from mnist_exp.tracking.mlflow_run import MlflowRun
from mnist_exp.tracking.owner import end_dead_runs
from mnist_exp.tracking.registry import load_model
from mnist_exp.tracking.sqlite import DATABASE, create_database, uri_of
from mnist_exp.tracking.store import Store, open_store, point_mlflow_at
from mnist_exp.tracking.sweep_run import SweepRun

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
    promote(store, find_run(store, "run-1"), "net", force=False)
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


def test_a_copy_that_is_killed_at_any_moment_is_finished_by_the_next(new_database: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    source = new_store(new_database, tmp_path / "source")
    Writer(source, 7, scratch).write()
    wanted = describe(source)
    statements = count_statements(source, new_store(new_database, tmp_path / "whole"))
    moments = [statements * part // 20 for part in range(20)]
    folders = {moment: tmp_path / f"killed-{moment}" for moment in moments}
    for moment, folder in folders.items():
        new_store(new_database, folder)
        killed = call(copy_and_die, tmp_path / "source", folder, moment, cwd=tmp_path)
        assert killed.wait() == -signal.SIGKILL, killed.stderr
    for folder in folders.values():
        target = open_store(None, folder)
        copy_store(source, target)
        assert describe(target) == wanted


def count_statements(source: Store, target: Store) -> int:
    """The number of SQL statements of a copy."""
    plain, calls = DefaultDialect.do_execute, []

    def counted(*arguments: object, **keys: object) -> object:
        calls.append(1)
        return plain(*arguments, **keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DefaultDialect, "do_execute", counted)
        copy_store(source, target)
    return len(calls)


def copy_and_die(source: Path, target: Path, moment: int) -> None:
    first, second = open_store(None, source), open_store(None, target)
    at_call(DefaultDialect, "do_execute", moment + 1, die)()
    copy_store(first, second)


@pytest.fixture
def pair(new_database: Path, tmp_path: Path) -> tuple[Store, Store]:
    return new_store(new_database, tmp_path / "a"), new_store(new_database, tmp_path / "b")


def begin_sweep(store: Store) -> SweepRun:
    sweep = SweepRun.create(store, "digits", "sweep", {"name": "sweep", "settings": {}})
    sweep.create_trial(0, "sweep-000", {"seed": 1}, None, "hash")
    return sweep


def test_the_copy_of_a_living_sweep_is_not_ended_or_resumed_and_follows_it(pair: tuple[Store, Store]) -> None:
    first, second = pair
    sweep = begin_sweep(first)
    first.set_tags(sweep.id, {"host": socket.gethostname(), "pid": "999999999", "started": "1"})
    copy_store(first, second)
    end_dead_runs(second)  # the process is on a machine of the same name
    (copied,) = list_runs(second, SWEEPS)
    assert copied.status == "RUNNING"
    with pytest.raises(
        TrackingError, match=r"sweep \(\w+\) is a copy of a run that was running, .*; resume it in its own"
    ):
        SweepRun.resume(second, "latest")
    sweep.take_over()  # another process goes on
    trial = sweep.create_trial(1, "sweep-001", {"seed": 2}, None, "hash")
    sweep.open_test_set(trial)
    sweep.log({"best/score": 0.5}, step=1, facts={"best_run": trial, "tested": trial})
    sweep.end("KILLED")
    copy_store(first, second)
    resumed = SweepRun.resume(second, "latest")
    assert resumed.run.params.keys() == {"owner/1", "owner/2", "test_set/1"}
    assert resumed.run.tags["pid"] == str(os.getpid())
    assert {run.number for run in resumed.trials()} == {0, 1}
    (newest,) = [run for run in resumed.trials() if run.number == 1]
    assert resumed.run.tags["best_run"] == resumed.run.tags["tested"] == newest.run_id != trial
    assert [opening.model_run for opening in resumed.openings()] == [newest.run_id]


def test_a_sweep_that_went_on_in_the_copy_stays_there(pair: tuple[Store, Store]) -> None:
    first, second = pair
    sweep = begin_sweep(first)
    sweep.end("KILLED")
    copy_store(first, second)
    theirs = SweepRun.resume(second, "latest")
    theirs.take_over()
    theirs.log({"best/score": 0.9}, step=1)
    theirs.end("FINISHED")
    assert copy_store(first, second).left == []
    assert theirs.fetch().status == "FINISHED"
    sweep.log({"best/score": 0.1}, step=2)
    assert copy_store(first, second).left == [
        f"sweep ({sweep.id[:8]}) has gone on in both stores; the other store keeps its own"
    ]
    assert theirs.fetch().metrics == {"best/score": 0.9}


def test_a_truncated_artifact_is_sent_again(source: Store, tmp_path: Path) -> None:
    target = open_store(None, tmp_path / "mlruns")
    copy_store(source, target)
    run = find_run(target, "run-1")
    assert target.artifacts is not None
    (config,) = target.artifacts.rglob(f"{run.id}/artifacts/config.yaml")
    (model,) = target.client.search_logged_models([run.experiment_id], f"source_run_id = '{run.id}'")
    weights = Path(model.artifact_location.removeprefix("file://"), "data", "model.keras")
    whole = config.read_bytes(), weights.read_bytes()
    for file in (config, weights):
        file.write_bytes(file.read_bytes()[:9])
    assert copy_store(source, target).files == 2
    assert (config.read_bytes(), weights.read_bytes()) == whole


def test_a_champion_that_was_served_is_copied(source: Store, tmp_path: Path) -> None:
    import mlflow

    target = open_store(None, tmp_path / "mlruns")
    copy_store(source, target)
    for store in (source, target):
        point_mlflow_at(store.uri)
        mlflow.artifacts.download_artifacts("models:/net@champion")
        assert list(store.artifacts.rglob("registered_model_meta")) if store.artifacts else False
    done = copy_store(source, target)
    assert (done.runs, done.files) == (0, 0)
    copy_store(source, open_store(None, tmp_path / "other"))


def test_an_id_in_a_tag_that_nobody_knows_is_replaced(pair: tuple[Store, Store]) -> None:
    first, second = pair
    run_id, other = (first.client.create_run("0", tags={"kind": "run"}, run_name=name).info.run_id for name in "ab")
    first.client.set_tag(run_id, f"future/{other}", f'{{"looked at": ["{other}"], "hash": "{"0" * 32}"}}')
    copy_store(first, second)
    there = find_run(second, "b").id
    expected = f'{{"looked at": ["{there}"], "hash": "{"0" * 32}"}}'
    assert find_run(second, "a").tags[f"future/{there}"] == expected


def test_a_copied_run_does_not_take_the_checkpoint_of_the_first(pair: tuple[Store, Store], tmp_path: Path) -> None:
    first, second = pair
    active = MlflowRun.create_run(first, tmp_path / "a", "digits", "stopped")
    (active.folder / STATE).parent.mkdir(parents=True)
    (active.folder / STATE).touch()
    active.end("KILLED")
    assert active.resumable
    copy_store(first, second)
    with pytest.raises(TrackingError, match=r"is a copy, which has no checkpoint; resume it in the store"):
        MlflowRun.resume_run(second, "stopped")


def test_the_champion_of_a_team_stays(source: Store, new_database: Path, tmp_path: Path) -> None:
    team = new_store(new_database, tmp_path / "team")
    run = team.client.create_run(team.experiment_id("digits"), run_name="theirs")
    team.client.create_registered_model("net")
    team.client.create_model_version("net", f"runs:/{run.info.run_id}/model", run.info.run_id)
    team.client.set_registered_model_alias("net", "champion", "1")
    assert copy_store(source, team).left == [
        "models:/net/1 is version 2 in the other store, where the number is taken",
        "models:/net@champion stays version 1, which is the other store's own",
    ]
    assert team.client.get_model_version_by_alias("net", "champion").version == 1


def test_what_arrives_changed_is_an_error(source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_store(None, tmp_path / "mlruns")
    plain = target.client.log_artifact

    def damaged(run_id: str, file: str, folder: str | None) -> None:
        if file.endswith("history.json"):
            Path(file).with_suffix(".old").write_text("{}")
            Path(file).with_suffix(".old").rename(tmp_path / "history.json")
            file = str(tmp_path / "history.json")
        plain(run_id, file, folder)

    monkeypatch.setattr(target.client, "log_artifact", damaged)
    with pytest.raises(TrackingError, match=r"run-0 has files that did not arrive as sent: history\.json; copy again"):
        copy_store(source, target)
