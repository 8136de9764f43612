"""Whole sweeps that are stopped or killed while nets are trained, and go on."""

import json
import signal
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from command_line import OWN, prepare_folder, run, store_in, trials
from mlflow import MlflowClient
from processes import at_call, at_metric, die, interrupt, interrupt_twice, start

from mnist_exp.tracking.find import list_runs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of another process")


@pytest.fixture
def folder(tmp_path: Path, new_database: Path) -> Path:
    return prepare_folder(tmp_path, new_database)


def widths(runs: list) -> list[int]:
    return sorted(json.loads(run.tags["values"])["model.width"] for run in runs)


def test_a_killed_sweep_goes_on_where_it_was(folder: Path) -> None:
    arguments = [*OWN, "+model.width=8,16,24,32", "training.epochs=3"]
    for ended in (1, 2, 3):
        killed = run(folder, *arguments, prepare=at_metric("train/loss", 5, die))  # in the second trial it trains
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert Counter(run.status for run in trials(store_in(folder))) == {"FINISHED": ended, "RUNNING": 1}
        arguments = ["sweep.resume=latest"]
    refused = run(folder, "sweep.resume=latest", "seed=3")
    assert refused.returncode == 1
    assert "seed=3" in refused.stderr
    done = run(folder, "sweep.resume=latest")
    assert done.returncode == 0, done.stderr
    finished = [run for run in trials(store_in(folder)) if run.status == "FINISHED"]
    assert widths(finished) == [8, 16, 24, 32]
    assert not list_runs(store_in(folder), "attributes.status = 'RUNNING'")


def test_killed_again_and_again_at_its_end_a_sweep_scores_its_winner_once(folder: Path) -> None:
    arguments = [*OWN, "+model.width=8,16"]
    for deadly in (
        at_metric("test/accuracy", 1, die),
        at_metric("test/accuracy", 1, die, before=False),
        at_call(MlflowClient, "log_artifacts", 1, die),  # of the report
        at_call(MlflowClient, "log_artifacts", 1, die, before=False),
        at_call(MlflowClient, "set_terminated", 1, die),
    ):
        killed = run(folder, *arguments, prepare=deadly)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        arguments = ["sweep.resume=latest"]
    done = run(folder, *arguments)
    assert done.returncode == 0, done.stderr
    store = store_in(folder)
    assert widths(trials(store)) == [8, 16]
    (parent,) = list_runs(store, "tags.kind = 'sweep'")
    assert parent.status == "FINISHED"
    assert len(store.client.get_metric_history(parent.id, "test/accuracy")) == 1
    kept = {artifact.path for artifact in store.client.list_artifacts(parent.id)}
    assert {"best.yaml", "report.html"} <= kept


def test_ctrl_c_lets_the_running_trial_end_and_says_how_to_go_on(folder: Path) -> None:
    process = run(folder, *OWN, "+model.width=8,16,24", prepare=at_metric("train/loss", 3, interrupt))
    assert process.returncode == 130, process.stderr
    (parent,) = list_runs(store_in(folder), "tags.kind = 'sweep'")
    assert f"resume     python -m mnist_exp -m sweep.resume={parent.id[:8]}" in process.stdout
    runs = trials(store_in(folder))
    assert ({run.status for run in runs}, widths(runs)) == ({"FINISHED"}, [8, 16])
    assert parent.status == "KILLED"
    assert "test/accuracy" not in parent.metrics


def epochs(folder: Path) -> int:
    """How many epochs the store knows."""
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db", timeout=30)) as database:
        return database.execute("SELECT count(*) FROM metrics WHERE key = 'train/loss'").fetchone()[0]


@pytest.mark.parametrize(
    ("executor", "signals"),
    [
        ("inline", [signal.SIGINT, signal.SIGINT]),
        ("local", [signal.SIGINT, signal.SIGINT]),
        ("local", [signal.SIGTERM]),
    ],
)
def test_ctrl_c_twice_or_sigterm_stops_at_once_and_leaves_no_process(
    folder: Path, executor: str, signals: list[signal.Signals]
) -> None:
    endless = [*OWN, f"executor={executor}", "+model.width=8,16", "training.epochs=100000"]
    family: list[psutil.Process] = []
    if executor == "inline":
        process = start("-m", *endless, cwd=folder, prepare=at_metric("train/loss", 3, interrupt_twice))
    else:
        process = start("-m", *endless, cwd=folder)
        process.wait_for(lambda: epochs(folder) > 3)
        pids = {int(run.tags["pid"]) for run in trials(store_in(folder))}
        family = [psutil.Process(pid) for pid in pids | {process.pid}]
        assert len(family) > 1
        for number in signals:
            for one in family:
                one.send_signal(number)  # all of them, as a terminal does
            time.sleep(1)  # two signals at once would be one
    assert process.wait() == 128 + signals[0], process.stderr
    assert "stopped    the running trials were ended" in process.stdout
    assert "Traceback" not in process.stderr
    assert not psutil.wait_procs(family, timeout=60)[1]
    store = store_in(folder)
    assert {run.status for run in list_runs(store, "tags.kind = 'trial'")} == {"KILLED"}  # so a resumed sweep has them
    (parent,) = list_runs(store, "tags.kind = 'sweep'")
    assert parent.status == "KILLED"
