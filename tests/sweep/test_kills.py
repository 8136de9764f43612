"""SIGKILL of the process that runs a sweep, or of a worker, at any moment: nothing is lost, nothing done twice."""

import os
import signal
import sys
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from light_trials import light, study_of
from mlflow import MlflowClient
from processes import Preparation, at_call, call, die
from sqlalchemy.engine.default import DefaultDialect

from mnist_exp.config.schema import Tracking
from mnist_exp.sweep.display import SweepDisplay
from mnist_exp.sweep.executors.base import Inline
from mnist_exp.sweep.executors.local import Local
from mnist_exp.sweep.search import search
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.trial import Job, Outcome
from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.mlflow_run import MlflowRun
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.stored_run import read_metric_history
from mnist_exp.tracking.sweep_run import SweepRun

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")

EXPECTED = {"grid": 12, "random": 10, "tpe": 10, "asha": 10, "hyperband": (4 + 2 + 1) + (3 + 2) + 3}


class Silent(SweepDisplay):
    """Says nothing."""

    def say(self, label: str, text: str) -> None:
        pass


def sweep(study: Study, tracking: Tracking, prepare: Preparation | None = None) -> None:
    """Begins the sweep, or goes on with it, as the command line does."""
    store = connect(tracking)
    if prepare:
        prepare()
    begun = list_runs(store, "tags.kind = 'sweep'")
    if begun:
        record = SweepRun.resume(store, "latest")
        study = Study.from_record(record.record, record.store.whitelist)
        record.take_over()
    else:
        record = SweepRun.create(store, tracking.experiment, study.name, study.to_record())
    search(study, record, tracking, Inline(), Silent(), light)
    record.end("FINISHED")


def in_a_process(study: Study, tracking: Tracking, prepare: Preparation | None = None) -> int:
    """Runs the sweep in a process of its own; returns its exit status, negative where a signal ended it."""
    process = call(sweep, study, tracking, prepare, cwd=Path(tracking.folder))
    assert process.wait() in (0, -signal.SIGKILL), process.stderr
    return process.wait()


def finished(tracking: Tracking):
    """Values and rung of every run that counts."""
    store = connect(tracking)
    (parent,) = list_runs(store, "tags.kind = 'sweep'")
    record = SweepRun.resume(store, parent.id)
    assert not [(run.name, run.tags.get("error")) for run in record._runs() if run.status == "FAILED"]
    counting = [r for r in record._runs() if r.status == "FINISHED" and "superseded" not in r.tags]
    assert Counter(r.tags["trial"] for r in counting) == {str(n): 1 for n in range(len(counting))}
    assert not [r for r in record._runs() if r.status == "RUNNING"]
    return [(r.tags["values"], r.tags.get("rung")) for r in counting]


def check(algorithm: str, study: Study, tracking: Tracking) -> None:
    done = finished(tracking)
    assert len(done) == EXPECTED[algorithm]
    if algorithm != "hyperband":
        assert len({values for values, _ in done}) == len(done)
    else:
        assert len(set(done)) == len(done)
    if algorithm == "asha":
        check_rungs(tracking)


def check_rungs(tracking: Tracking) -> None:
    """Every trial did at each rung what is recorded there, also where its first process was killed after that."""
    store = connect(tracking)
    record = SweepRun.find(store, "latest")
    ended = set()
    for epoch in (1, 2, 4):
        decisions = read_metric_history(store, record.id, f"rung/{epoch}/goes_on")
        scores = read_metric_history(store, record.id, f"rung/{epoch}")
        assert len(decisions) == len(scores) == len({number for number, _ in decisions})  # none was made again
        reached = {trial.number for trial in record.trials() if trial.epochs >= epoch}
        assert {number for number, _ in decisions} == reached
        ended |= {(number, epoch) for number, decision in decisions if not decision}
    pruned = {(trial.number, trial.epochs) for trial in record.trials() if trial.outcome == "pruned"}
    assert pruned == ended
    assert {trial.epochs for trial in record.trials() if trial.outcome == "complete"} == {8}
    assert pruned


@pytest.mark.parametrize("algorithm", list(EXPECTED))
def test_killed_between_statements_of_sql_a_sweep_ends_as_an_undisturbed_one(algorithm, tracking):
    """Each process is killed 37 statements later than the one before. A trial takes about 200 of them."""
    study = study_of(algorithm)
    for kills in count():
        before_statement = at_call(DefaultDialect, "do_execute", 40 + 37 * kills, die)
        if in_a_process(study, tracking, before_statement) == 0:
            break
    assert kills >= 10
    check(algorithm, study, tracking)


@pytest.mark.parametrize("algorithm", list(EXPECTED))
@pytest.mark.parametrize(
    ("method", "before"),
    [
        ("create_trial", True),  # between ask and record
        ("create_trial", False),  # between record and submit
        ("log", True),  # between the trial's end and the sweep's knowledge of it
        ("log", False),
    ],
)
def test_killed_between_two_steps(algorithm, method, before, tracking):
    study = study_of(algorithm)
    killed = in_a_process(study, tracking, at_call(SweepRun, method, 3, die, before=before))
    assert killed == -signal.SIGKILL
    assert in_a_process(study, tracking) == 0
    check(algorithm, study, tracking)


def test_the_metrics_of_a_sweep_are_stepped_by_order_of_ending_also_after_a_resume(tracking):
    """MLflow shows the value of the largest step, so it shows the newest."""
    study, store = study_of("random", max_trials=4), connect(tracking)
    record = SweepRun.create(store, tracking.experiment, study.name, study.to_record())
    search(study, record, tracking, Inline(), Silent(), light)
    for run in list_runs(store, "tags.trial = '0'"):  # as if its process had been killed: it ends last
        record.supersede(run.id, "the sweep was interrupted")
    search(study, record, tracking, Inline(), Silent(), light)
    points = read_metric_history(store, record.id, "trials/scored")
    assert points == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 3), (6, 4)]
    newest = [trial.score for trial in record.trials() if trial.number == 0]
    assert [record.fetch().metrics["trial/score"]] == newest


def test_killed_between_score_and_end_of_a_run(tracking):
    study = study_of("grid")
    assert in_a_process(study, tracking, at_call(MlflowRun, "end", 3, die)) == -signal.SIGKILL
    assert in_a_process(study, tracking) == 0
    check("grid", study, tracking)


def test_killed_again_and_again_during_the_repair(tracking):
    study = study_of("tpe")
    assert in_a_process(study, tracking, at_call(MlflowRun, "end", 3, die)) == -signal.SIGKILL
    for before in (True, False):
        in_a_process(study, tracking, at_call(SweepRun, "supersede", 1, die, before=before))
    assert in_a_process(study, tracking) == 0
    check("tpe", study, tracking)


def test_a_killed_sweep_whose_trials_all_ended_has_nothing_to_run_again(tracking):
    study = study_of("grid")
    assert in_a_process(study, tracking, at_call(SweepRun, "end", 1, die)) == -signal.SIGKILL
    runs = len(list_runs(connect(tracking), "tags.kind = 'trial'"))
    assert in_a_process(study, tracking) == 0
    assert len(list_runs(connect(tracking), "tags.kind = 'trial'")) == runs == EXPECTED["grid"]


def fatal_once(job: Job) -> Outcome:
    """Kills its worker in the middle of the fourth trial, when that runs for the first time."""
    marker = Path(job.config.values["tracking"]["folder"], "fatal")
    if job.number == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return light(job)


@pytest.fixture(scope="module")
def local():
    with Local(2) as found:
        yield found


@pytest.mark.parametrize("algorithm", list(EXPECTED))
def test_a_killed_worker_costs_no_trial(algorithm, tracking, local):
    study, store = study_of(algorithm), connect(tracking)
    record = SweepRun.create(store, tracking.experiment, study.name, study.to_record())
    search(study, record, tracking, local, Silent(), fatal_once)
    record.end("FINISHED")
    check(algorithm, study, tracking)
    (lost,) = [run for run in record._runs() if "superseded" in run.tags]
    assert (lost.tags["trial"], lost.status) == ("3", "KILLED")


def test_a_trial_that_was_created_twice_leaves_no_run_running(tracking, monkeypatch):
    """As MLflow's client does if the answer of a server is lost."""
    create = MlflowClient.create_run
    asked: list[str] = []

    def twice(client, *args, **keys):
        asked.append(create(client, *args, **keys).info.run_id)
        return create(client, *args, **keys)

    monkeypatch.setattr(MlflowClient, "create_run", twice)
    sweep(study_of("grid"), tracking)
    store = connect(tracking)
    assert len(asked) == 1 + EXPECTED["grid"]
    assert not list_runs(store, "attributes.status = 'RUNNING' and tags.kind = 'trial'")
    (parent,) = list_runs(store, "tags.kind = 'sweep'")
    assert [trial.outcome for trial in SweepRun.find(store, parent.id).trials()] == ["complete"] * EXPECTED["grid"]


def test_killed_before_the_sweep_counts_its_last_trial_a_resumed_one_counts_it(tracking):
    study = study_of("grid")
    killed = in_a_process(study, tracking, at_call(SweepRun, "log", EXPECTED["grid"], die))
    assert killed == -signal.SIGKILL
    assert in_a_process(study, tracking) == 0
    store = connect(tracking)
    (parent,) = list_runs(store, "tags.kind = 'sweep'")
    scores = [trial.score for trial in SweepRun.find(store, parent.id).trials()]
    assert parent.metrics["trials/scored"] == len(scores) == EXPECTED["grid"]
    assert parent.metrics["best/score"] == max(scores)
    logged = read_metric_history(store, parent.id, "trial/score")
    assert logged == list(enumerate(scores, start=1)), "the one that was not counted has its score as well"
