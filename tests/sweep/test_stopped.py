"""Whole sweeps that are stopped or killed while nets are trained, and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from command_line import NET, OWN, command, run, store_in, trials

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of another process")

DEADLY = """
import os, signal
from mnist_exp.cli import main
from mnist_exp.sweep.report import report
from mnist_exp.sweep import winner
from mnist_exp.tracking import sweep_run as sweeps

def die(*args, **keys):
    os.kill(os.getpid(), signal.SIGKILL)

{place} = die
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_net.py").write_text(NET)
    return tmp_path


def started(folder: Path, *arguments: str, until: Callable[[list], bool]) -> subprocess.Popen[str]:
    """The process of a sweep whose trials got so far."""
    process = subprocess.Popen(
        command(*arguments), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (folder / "mlruns" / "mlflow.db").exists() or not until(trials(store_in(folder))):
        assert process.poll() is None
        time.sleep(0.1)
    return process


def widths(runs: list) -> list[int]:
    return sorted(json.loads(run.data.tags["values"])["model.width"] for run in runs)


def test_a_killed_sweep_goes_on_where_it_was(folder: Path) -> None:
    arguments = [*OWN, "+model.width=8,16,24,32", "training.epochs=3"]
    for ended in (1, 2, 3):  # each time in the middle of the next trial
        process = started(
            folder, *(arguments if ended == 1 else ["sweep.resume=latest"]),
            until=lambda runs: sum(run.info.status == "FINISHED" for run in runs) >= ended  # noqa: B023
            and any(run.info.status == "RUNNING" for run in runs),
        )  # fmt: skip
        process.kill()
        process.communicate()
    refused = run(folder, "sweep.resume=latest", "seed=3")
    assert refused.returncode == 1
    assert "seed=3" in refused.stderr
    done = run(folder, "sweep.resume=latest")
    assert done.returncode == 0, done.stderr
    finished = [run for run in trials(store_in(folder)) if run.info.status == "FINISHED"]
    assert widths(finished) == [8, 16, 24, 32]
    assert not store_in(folder).runs("attributes.status = 'RUNNING'")


def test_killed_again_and_again_at_its_end_a_sweep_scores_its_winner_once(folder: Path) -> None:
    arguments = [*OWN, "+model.width=8,16"]
    for place in ("winner.Evaluation", "winner.Winner", "report.write", "sweeps.SweepRecord.keep"):
        script = [sys.executable, "-c", DEADLY.format(place=place), "-m", *arguments]
        killed = subprocess.run(script, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        arguments = ["sweep.resume=latest"]
    done = run(folder, *arguments)
    assert done.returncode == 0, done.stderr
    store = store_in(folder)
    assert widths(trials(store)) == [8, 16]
    (parent,) = store.runs("tags.kind = 'sweep'")
    assert parent.info.status == "FINISHED"
    assert len(store.client.get_metric_history(parent.info.run_id, "test/accuracy")) == 1
    kept = {artifact.path for artifact in store.client.list_artifacts(parent.info.run_id)}
    assert {"best.yaml", "report.html"} <= kept


def test_ctrl_c_lets_the_running_trial_end_and_says_how_to_go_on(folder: Path) -> None:
    process = started(folder, *OWN, "+model.width=8,16,24,32,40,48", until=bool)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    (parent,) = store_in(folder).runs("tags.kind = 'sweep'")
    assert f"resume     python -m mnist_exp -m sweep.resume={parent.info.run_id[:8]}" in out
    runs = trials(store_in(folder))
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert 1 <= len(runs) < 6
    assert parent.info.status == "KILLED"
    assert "test/accuracy" not in parent.data.metrics


@pytest.mark.parametrize("executor", ["inline", "local"])
def test_ctrl_c_twice_stops_at_once_and_leaves_no_process(folder: Path, executor: str) -> None:
    process = started(
        folder, *OWN, f"executor={executor}", "+model.width=8,16", "training.epochs=100000", until=bool
    )  # fmt: skip
    time.sleep(5)  # it trains by now
    family = psutil.Process(process.pid).children(recursive=True)
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.5)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopped    the running trials were ended" in out
    assert "Traceback" not in err
    assert not psutil.wait_procs(family, timeout=15)[1]
    store = store_in(folder)
    assert {run.info.status for run in store.runs("tags.kind = 'trial'")} == {"KILLED"}  # so a resumed sweep has them
    (parent,) = store.runs("tags.kind = 'sweep'")
    assert parent.info.status == "KILLED"
