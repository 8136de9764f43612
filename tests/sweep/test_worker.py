"""Trials that really train, on a few batches of digits."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from light_trials import study_of
from test_kills import Silent

from mnist_exp import experiment
from mnist_exp.config.objective import Objective
from mnist_exp.data.load import load_splits
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.sweep.executors.base import Inline
from mnist_exp.sweep.pruners.median import MedianPruner
from mnist_exp.sweep.recorder import TrialRecorder
from mnist_exp.sweep.search import search
from mnist_exp.sweep.trial import Proposal
from mnist_exp.sweep.worker import Cancelled, is_cancelled, run_trial
from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.rungs import Rungs
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.stored_run import download, fetch_run, read_metric_history
from mnist_exp.tracking.sweep_run import SweepRun

SMALL = ["model.widths=[16]", "training=smoke", "training.epochs=4"]
QUICK = ["dataset.limit=300"]


@pytest.fixture
def study():
    found = study_of("grid", *SMALL)
    return replace(found, digest=load_splits(found.configs.first()).digest)


def begun(study, tracking) -> SweepRun:
    return SweepRun.create(connect(tracking), "sweeps", "study", study.to_record())


@pytest.fixture
def job(study, tracking):
    """A trial of the grid, written down and not yet run."""
    recorder = TrialRecorder(study, begun(study, tracking), tracking, MedianPruner(1), Silent())
    return recorder.begin(Proposal(0, {"model.dropout": 0.1, "seed": 2}))


def run_of(job, tracking):
    return fetch_run(connect(tracking), job.run_id)


def test_a_trial_returns_its_score_and_records_it_with_its_run(job, tracking):
    outcome = run_trial(job)
    run = run_of(job, tracking)
    assert outcome.failure is None
    assert len(outcome.curve) == 4
    assert run.status == "FINISHED"
    assert run.metrics["score"] == outcome.score
    assert run.metrics["val/accuracy"] == pytest.approx(outcome.score)
    assert run.params["model.dropout"] == "0.1"
    assert run.params["seed"] == "2"
    assert "test/accuracy" not in run.metrics


def test_a_poor_trial_ends_early_and_its_best_epoch_counts(job, tracking):
    outcome = run_trial(replace(job, medians=(0.0, 1.0, 1.0, 1.0), pruning_epochs=1))
    assert outcome.pruned
    assert len(outcome.curve) == 2
    assert outcome.score == max(outcome.curve)
    run = run_of(job, tracking)
    assert (run.status, run.tags["pruned"], run.tags["epochs"]) == ("FINISHED", "true", "2")


def test_one_that_nobody_waits_for_is_left_as_interrupted(job, tracking):
    asked = []
    token = is_cancelled.set(lambda: bool(asked.append(True)) or len(asked) > 2)
    try:
        with pytest.raises(Cancelled):
            run_trial(job)
    finally:
        is_cancelled.reset(token)
    run = run_of(job, tracking)
    assert run.status == "KILLED"
    assert "score" not in run.metrics
    assert len(asked) == 3


def test_no_trial_ends_in_its_first_epochs_or_where_no_median_is_known(job):
    assert not run_trial(replace(job, medians=(1.0, 1.0), pruning_epochs=2)).pruned


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"seconds": 0.0}, "TrainingError: a trial must end within sweep.trial_timeout=0 s"),
        ({"digest": "f" * 64}, f"DataError: the data set must have the digest {'f' * 64}, as when the sweep began"),
    ],
)
def test_what_goes_wrong_is_recorded_and_returned(job, change, error, tracking):
    outcome = run_trial(replace(job, **change))
    assert outcome.score is None
    assert str(outcome.failure).startswith(error)
    run = run_of(job, tracking)
    assert run.status == "FAILED"
    assert run.tags["error"].startswith(error)


def test_a_bad_pair_of_values_is_refused_with_the_rule(job):
    config = job.config.with_values({"training.label_smoothing": 0.1})
    failure = run_trial(replace(job, config=config)).failure
    assert str(failure).startswith("ConfigError: training.label_smoothing must be 0 with training.loss=sparse_")
    assert failure.place == "training.label_smoothing"  # other bad pairs are other failures


def test_several_seeds_are_runs_below_the_trial_and_their_mean_is_its_score(study, tracking):
    study = replace(study, settings=study.settings.model_copy(update={"executions": 3}))
    resumed_by = tracking.model_copy(update={"experiment": "another"})
    recorder = TrialRecorder(study, begun(study, tracking), resumed_by, MedianPruner(1), Silent())
    job = recorder.begin(Proposal(0, {"model.dropout": 0.1, "seed": 5}))
    outcome = run_trial(job)
    store = connect(tracking)
    below = list_runs(store, "tags.kind = 'execution'")
    assert {run.tags["mlflow.parentRunId"] for run in below} == {job.run_id}
    assert sorted(run.params["seed"] for run in below) == ["5", "6", "7"]
    scores = [run.metrics["val/accuracy"] for run in below]
    assert outcome.score == pytest.approx(sum(scores) / 3)
    assert outcome.spread > 0
    run = run_of(job, tracking)
    assert {one.experiment_id for one in below} == {run.experiment_id}
    assert run.metrics["score_spread"] == pytest.approx(outcome.spread)
    best = max(below, key=lambda run: run.metrics["val/accuracy"])
    assert run.tags["model_run"] == best.id
    assert run.tags["parameters"] == best.tags["parameters"]


@pytest.mark.parametrize(("others", "trained"), [(0.0, [4, 4]), (1.0, [2])], ids=["among the best", "not"])
def test_the_first_of_several_seeds_is_compared_at_a_rung(job, tracking, others, trained):
    store = connect(tracking)
    rungs = Rungs(store, job.sweep)
    rungs.decide(2, 7, others, lambda seen: True)
    outcome = run_trial(replace(job, executions=2, rungs=(2,), factor=4))
    assert outcome.pruned is (others == 1.0)
    below = sorted(list_runs(store, "tags.kind = 'execution'"), key=lambda run: run.params["seed"])
    assert [len(read_metric_history(store, run.id, "val/accuracy")) for run in below] == trained
    assert {run.params["training.epochs"] for run in below} == {"4"}  # that of the full training
    assert outcome.epochs == sum(trained) == int(run_of(job, tracking).tags["trained_epochs"])
    assert len(outcome.curve) == trained[0] == int(run_of(job, tracking).tags["epochs"])
    ((number, score),) = [point for point in read_metric_history(store, job.sweep, "rung/2") if point[0] != 7]
    assert number == job.number
    assert score == pytest.approx(dict(read_metric_history(store, below[0].id, "val/accuracy"))[2])


def test_a_promoted_trial_goes_on_as_one_training_in_one_piece(tracking):
    """Hyperband's second rung: the curve of the parent, then what an undisturbed training would have had."""
    study = study_of("hyperband", *SMALL[:2], *QUICK, max_trials=7)  # the first bracket
    study = replace(study, digest=load_splits(study.configs.first()).digest)
    record = begun(study, tracking)
    search(study, record, tracking, Inline(), Silent())
    attempts = {attempt.number: attempt for attempt in record.trials()}
    assert len(attempts) == 7
    promoted = next(attempt for attempt in attempts.values() if attempt.rung["number"] == 2)
    curve = record.curve(promoted.run_id, "val/accuracy")
    folder = str(Path(tracking.folder, "plain"))
    changed = {"training.epochs": promoted.rung["epochs"], "tracking.enabled": False, "tracking.folder": folder}
    whole = experiment.run(study.configs.of(promoted.values).with_values(changed)).history["val_accuracy"]
    with download(record.store, promoted.run_id, "history.json") as path:
        history = json.loads(path.read_text())["val_accuracy"]
    assert history == pytest.approx(whole)
    assert len(whole) == 4
    assert curve == pytest.approx(whole[2:])  # its own run has the epochs it trained
    assert list(attempts)[-1] == 6


SMOOTHED = {"training.loss": "categorical_crossentropy", "training.label_smoothing": 0.3}


def test_a_sweep_that_an_older_version_began_scores_by_the_loss_of_that_version(job, tracking):
    """The cross-entropy of clipped probabilities, without smoothing."""
    job = replace(job, config=job.config.with_values(SMOOTHED), objective=Objective("val/loss", "min"))
    new, run = run_trial(job), run_of(job, tracking)
    assert new.score == run.metrics["score"] == run.metrics["val/loss"]
    old = run_trial(replace(job, definitions=1))
    assert old.score == pytest.approx(run.metrics["val/cross_entropy"], rel=1e-4)  # nothing is clipped here
    assert new.score - old.score > 0.1
    assert run_of(job, tracking).metrics["score"] == old.score


def test_the_cross_entropy_is_known_after_every_epoch(job):
    job = replace(job, config=job.config.with_values(SMOOTHED), objective=Objective("val/cross_entropy", "min"))
    outcome = run_trial(job)
    assert len(outcome.curve) == 4
    assert outcome.score == outcome.curve[-1]


def test_a_diverged_trial_is_called_so_and_has_a_score(job, tracking):
    outcome = run_trial(replace(job, config=job.config.with_values({"optimizer.learning_rate": 1e10})))
    assert outcome.diverged
    assert 0 <= outcome.score <= 1
    assert run_of(job, tracking).tags["diverged"] == "true"


def test_a_score_that_is_not_a_number_is_a_failure(job, tracking, monkeypatch):
    monkeypatch.setattr(Evaluation, "calibration_error", float("nan"))
    outcome = run_trial(replace(job, objective=Objective("val/calibration_error", "min")))
    assert str(outcome.failure) == "TrainingError: study-000 must have a finite val/calibration_error, but got nan"
    assert run_of(job, tracking).status == "FAILED"
    assert "score" not in run_of(job, tracking).metrics


def test_a_worker_with_other_code_refuses_the_trial_and_names_its_folder(job, tracking, monkeypatch, tmp_path):
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    (tmp_path / "home/nets_of_a_team.py").write_text("from mnist_exp.models import mlp as net\n")
    monkeypatch.syspath_prepend("")
    config = job.config.with_values({"model._target_": "nets_of_a_team.net"})
    outcome = run_trial(replace(job, config=config, own_code="another"))
    assert outcome.failure is not None
    assert "must be that with which this process of the sweep began; copy it there" in outcome.failure.message
    assert str(tmp_path / "home") in outcome.failure.message
    outcome = run_trial(replace(job, own_code="another"))
    assert outcome.failure is not None
    assert "lacks what the config names" in outcome.failure.message
