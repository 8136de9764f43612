"""Two processes want to run the same sweep."""

import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest
from command_line import store_in
from light_trials import light, study_of
from processes import Process, call
from test_worker import Silent

from mnist_exp.config.schema import Tracking
from mnist_exp.sweep.executors.base import Inline
from mnist_exp.sweep.search import search
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.trial import Job, Outcome
from mnist_exp.tracking import owner
from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.owner import OwnershipLost
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.sweep_run import SweepRun

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of another process")


def slow(job: Job) -> Outcome:
    time.sleep(0.2)
    return light(job)


def resume_at(moment: float, tracking: Tracking, force: bool) -> None:
    """Resumes the sweep at this moment, as the command line does."""
    owner.BEAT = 0.2
    store = connect(tracking)
    time.sleep(max(0.0, moment - time.time()))
    record = SweepRun.resume(store, "latest", force=force)
    study = Study.from_record(record.record, store.whitelist)
    record.take_over()
    with record.ownership.heartbeat():
        search(study, record, tracking, Inline(), Silent(), slow)
        record.end("FINISHED")


@pytest.fixture
def tracking(tmp_path: Path, new_database: Path) -> Tracking:
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(new_database.read_bytes())
    return Tracking(folder=str(tmp_path / "mlruns"))


@pytest.fixture
def sweep(tracking: Tracking) -> SweepRun:
    """A grid of twelve trials, of which none has run."""
    study = study_of("grid")
    record = SweepRun.create(connect(tracking), "sweeps", "study", study.to_record())
    record.end("KILLED")
    return record


def assert_each_trial_counts_once(tracking: Tracking) -> None:
    runs = list_runs(store_in(Path(tracking.folder).parent), "tags.kind = 'trial'")
    counted = Counter(run.tags["trial"] for run in runs if run.is_finished and "superseded" not in run.tags)
    assert counted == {str(number): 1 for number in range(12)}
    assert not [run for run in runs if run.status == "RUNNING"]


def suspend(process: Process, database: Path) -> None:
    """Suspends the process at a moment at which it does not hold SQLite's lock, which would stop every other one."""
    while True:
        os.kill(process.pid, signal.SIGSTOP)
        with closing(sqlite3.connect(database, timeout=1)) as connection, suppress(sqlite3.OperationalError):
            connection.execute("BEGIN IMMEDIATE")
            return
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.05)


@pytest.mark.parametrize("attempt", range(3))
def test_of_two_that_start_in_the_same_moment_one_runs_the_sweep(tracking, sweep, attempt: int) -> None:
    moment = time.time() + 1.5
    both = [call(resume_at, moment, tracking, False, cwd=Path(tracking.folder)) for _ in range(2)]
    ended: dict[int, Process] = {process.wait(): process for process in both}
    assert ended.keys() == {0, 1}, [process.stderr for process in both]
    assert f"is run by {owner.process_tags()['host']}, pid {ended[0].pid}" in ended[1].stderr
    assert_each_trial_counts_once(tracking)
    owners = [key for key in sweep.fetch().params if key.startswith("owner/")]
    assert sorted(owners) == ["owner/1", "owner/2"]


def test_one_that_was_suspended_finds_out_that_another_has_taken_the_sweep(tracking, sweep) -> None:
    first = call(resume_at, 0.0, tracking, False, cwd=Path(tracking.folder))
    first.wait_for(lambda: sum(trial.outcome == "complete" for trial in sweep.trials()) > 1)
    suspend(first, Path(tracking.folder, "mlflow.db"))
    second = call(resume_at, 0.0, tracking, True, cwd=Path(tracking.folder))
    second.wait_for(lambda: sum(trial.outcome == "complete" for trial in sweep.trials()) > 4)
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 1
    assert OwnershipLost.__name__ in first.stderr
    assert f"pid {second.pid} now, so this process has ended its trials" in first.stderr
    assert second.wait() == 0, second.stderr
    assert_each_trial_counts_once(tracking)
    assert sweep.fetch().status == "FINISHED"
    steps = [point.step for point in sweep.store.client.get_metric_history(sweep.id, "trials/scored")]
    assert len(steps) == len(set(steps))
