"""sweep.first, reuse, constraints, confirm and any metric as the objective, with real trials of a second each."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mnist_exp
from mnist_exp.errors import ConfigError, TrackingError, TrainingError
from mnist_exp.sweep.confirm import confirm
from mnist_exp.sweep.result import SweepResult
from mnist_exp.sweep.trial import Job, Outcome
from mnist_exp.tracking.find import SWEEPS, list_runs
from mnist_exp.tracking.store import Store, open_store
from mnist_exp.tracking.stored_run import fetch_run, read_curve, read_metric_history

SMALL = ("model.widths=[16]", "training=smoke", "dataset.limit=400")
DROPOUT = "model.dropout=interval(0,0.5)"

Sweep = Callable[..., SweepResult]


@pytest.fixture
def here(tmp_path: Path, new_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mlruns").mkdir()
    shutil.copy(new_database, tmp_path / "mlruns")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(here: Path) -> Store:
    return open_store(None, here / "mlruns")


@pytest.fixture
def sweep(here: Path) -> Sweep:
    return lambda *overrides: mnist_exp.run_sweep(*SMALL, *overrides, quiet=True)


def column(result: SweepResult, key: str) -> list[Any]:
    return list(result.trials[key])


def test_defaults_runs_files_and_sweeps_run_first(sweep, here, store):
    run = mnist_exp.run(*SMALL, "model.dropout=0.25", quiet=True)
    (here / "mine.yaml").write_text("# @package _global_\nmodel: {dropout: 0.125}\n")
    first = sweep(
        DROPOUT, "sweep.max_trials=4", f"sweep.first=[defaults,{run.run_id},mine.yaml,best]", "sweep.name=one"
    )
    assert column(first, "model.dropout")[:3] == [0.0, 0.25, 0.125]
    sources = [fetch_run(store, run_id).tags.get("proposed_by") for run_id in first.trials.run_id]
    assert sources == ["first/1", "first/2", "first/3", None]  # the best is the run, which comes once
    second = sweep(DROPOUT, "sweep.max_trials=5", "sweep.first=[one]")
    assert column(second, "model.dropout")[:4] == [
        trial["model.dropout"] for _, trial in first.trials.sort_values("score", ascending=False).iterrows()
    ]


def test_the_file_of_a_winner_runs_first_in_the_next_sweep(sweep, here):
    one = sweep("model.dropout=0.1,0.2", "optimizer=adam,sgd", "sweep.save_best=best.yaml")
    two = sweep(DROPOUT, "optimizer=adam,sgd", "sweep.max_trials=2", "sweep.first=[best.yaml]")
    assert two.runs[0].values == one.best.values


def test_hyperband_takes_what_runs_first_into_its_first_bracket(sweep):
    found = sweep(DROPOUT, "training.epochs=3", "sweep.pruner=hyperband", "sweep.first=[defaults]")
    assert found.runs[0].values == {"model.dropout": 0.0}
    assert found.runs[0].rung["number"] == 0


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        ("nosuch", TrackingError, "the store has no run yet"),
        ("nosuch.yaml", ConfigError, r"sweep\.first: nosuch\.yaml must be a YAML file that can be read"),
        ("bad.yaml", ConfigError, r"sweep\.first: bad\.yaml must hold keys"),
        ("far.yaml", ConfigError, r"sweep\.first: far\.yaml: model\.dropout must fit the space, from 0 to 0\.5, but g"),
    ],
)
def test_what_cannot_run_first_is_said_before_anything_runs(sweep, here, store, entry, error, said):
    (here / "bad.yaml").write_text("- 1\n- 2\n")
    (here / "far.yaml").write_text("model: {dropout: 0.75}\n")
    with pytest.raises(error, match=said):
        sweep(DROPOUT, "sweep.max_trials=2", f"sweep.first=[{entry}]")
    assert not list_runs(store)


def test_what_was_trained_before_is_not_trained_again(sweep, store):
    one = sweep("model.dropout=0.1,0.2,0.3")
    plain = mnist_exp.run(*SMALL, "model.dropout=0.4", quiet=True)
    two = sweep("model.dropout=0.2,0.4,0.45", "sweep.reuse=true")
    runs = [fetch_run(store, run_id) for run_id in two.trials.run_id]
    assert [run.tags.get("reused") for run in runs] == [one.trials.run_id[1], plain.run_id, None]
    assert column(two, "score")[0] == column(one, "score")[1]
    assert column(two, "score")[1] == plain.metrics["val/accuracy"]
    assert [trial.trained_epochs for trial in two.runs[:2]] == [0, 0]
    assert two.winner is not None
    assert not [key for key in runs[1].metrics if key.startswith("test/")]


def test_a_trial_that_is_not_trained_again_has_the_curves_and_the_size_of_the_run(sweep, store):
    plain = mnist_exp.run(*SMALL, "training.epochs=3", quiet=True)
    found = sweep("training.epochs=3", "model.widths=[16],[8]", "sweep.reuse=true")
    earlier, run = fetch_run(store, plain.run_id), fetch_run(store, found.trials.run_id[0])
    assert run.tags["reused"] == earlier.id
    assert {key: run.tags[key] for key in ("parameters", "used_epoch")} == {"parameters": "12730", "used_epoch": "3"}
    kept = {key: value for key, value in earlier.metrics.items() if not key.startswith("test/")}
    assert run.metrics == kept | {"score": found.trials.score[0]}
    assert len(read_curve(store, run.id, "val/accuracy")) == 3
    for key in kept:
        assert read_metric_history(store, run.id, key) == read_metric_history(store, earlier.id, key), key
    assert "Accuracy against parameters" in found.report.read_text()


def test_a_run_without_a_model_is_not_taken_again(sweep, store):
    one = sweep("model.dropout=0.1,0.2")
    for model in store.client.search_logged_models([store.experiment_id("digits")]):
        store.client.delete_logged_model(model.model_id)
    two = sweep("model.dropout=0.1,0.2", "sweep.reuse=true")
    assert not any("reused" in fetch_run(store, run_id).tags for run_id in two.trials.run_id)
    assert column(two, "score") == column(one, "score")


def test_other_data_seeds_and_code_are_trained(sweep, here, store, monkeypatch):
    monkeypatch.syspath_prepend(here)
    (here / "my_net.py").write_text(NET.format(width=8))
    own = ["model=custom", "model._target_=my_net.net"]
    small = ["training=smoke", "dataset.limit=400", *own, "optimizer.learning_rate=0.01,0.02"]
    mnist_exp.run_sweep(*small, quiet=True)
    again = mnist_exp.run_sweep(*small, "sweep.reuse=true", quiet=True)
    assert all("reused" in fetch_run(store, one).tags for one in again.trials.run_id)
    for changed in ("seed=1", "dataset.limit=300", "training.epochs=3"):
        other = mnist_exp.run_sweep(*small, changed, "sweep.reuse=true", quiet=True)
        assert not any("reused" in fetch_run(store, one).tags for one in other.trials.run_id), changed
    monkeypatch.delitem(__import__("sys").modules, "my_net", raising=False)
    (here / "my_net.py").write_text(NET.format(width=9))
    edited = mnist_exp.run_sweep(*small, "sweep.reuse=true", quiet=True)
    assert not any("reused" in fetch_run(store, one).tags for one in edited.trials.run_id)


NET = """
import keras

def net(image_shape, classes):
    inputs = keras.Input(image_shape)
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Dense({width}, "relu")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(x))
"""


def test_a_net_that_is_too_large_is_not_trained_and_costs_no_trial(sweep, store):
    found = sweep("model.widths=[8],[64],[16]", "sweep.constraints={parameters: {max: 20000}}")
    assert column(found, "outcome") == ["complete", "infeasible", "complete"]
    assert found.best.number in (0, 2)
    run = fetch_run(store, found.trials.run_id[1])
    assert run.status == "FINISHED"
    assert run.tags["violates"].startswith("parameters is 50,890, above the maximum of 20,000")
    assert "train/loss" not in run.metrics
    drawn = sweep(
        "model.widths=[8],[64]", "seed=range(8)", "sweep.sampler=random", "sweep.max_trials=4",
        "sweep.constraints={parameters: {max: 20000}}",
    )  # fmt: skip
    assert column(drawn, "outcome").count("complete") == 4
    assert "infeasible" in column(drawn, "outcome")


def test_what_violates_a_constraint_is_never_crowned(sweep):
    free = sweep("model.dropout=0.0,0.1,0.4")
    limit = sorted(trial.metrics["val/accuracy"] for trial in free.runs)[1]
    bound = sweep("model.dropout=0.0,0.1,0.4", f"sweep.constraints={{val/accuracy: {{max: {limit}}}}}")
    assert bound.best.metrics["val/accuracy"] <= limit
    assert any(column(bound, "excluded"))
    with pytest.raises(TrainingError, match="no trial is complete and meets the constraints"):
        sweep("model.dropout=0.0,0.1", "sweep.constraints={val/accuracy: {min: 1.5}}")


def test_a_metric_of_the_users_own_is_the_objective(sweep):
    top = "training.metrics=[{_target_: keras.metrics.SparseTopKCategoricalAccuracy, k: 3, name: top_3}]"
    found = sweep("model.dropout=0.0,0.4", top, "sweep.objective=val/top_3")
    assert found.best.score == max(trial.metrics["val/top_3"] for trial in found.runs)
    fast = sweep("model.dropout=0.0,0.4", "sweep.objective=wall_seconds/training", "sweep.direction=min")
    assert fast.best.score == min(column(fast, "score"))


def test_an_objective_that_no_run_logs_is_said_at_once_or_by_the_first_trial(sweep):
    with pytest.raises(ConfigError, match=r"sweep\.objective must be a metric that a run logs.*did you mean val/accu"):
        sweep("model.dropout=0.0,0.4", "sweep.objective=val/acuracy")
    top = "training.metrics=[{_target_: keras.metrics.SparseTopKCategoricalAccuracy, k: 3, name: top_3}]"
    with pytest.raises(TrainingError, match=r"sweep\.objective must be a metric that a run logs: .*val/top_3"):
        sweep("model.dropout=0.0,0.4", top, "sweep.objective=val/top_4")


def test_the_best_are_trained_again_and_their_means_choose(sweep, store):
    found = sweep("model.dropout=0.0,0.2,0.4", "sweep.confirm=2", "sweep.confirm_seeds=3")
    runs = list_runs(store, "tags.confirms IS NOT NULL")
    assert len(runs) == 6
    assert {run.params["seed"] for run in runs} == {"1", "2", "3"}
    first, second = found.winner.confirmed
    assert first.mean >= second.mean
    assert found.best.number == first.trial.number
    ranked = sorted(found.runs, key=lambda trial: (-trial.score, trial.number))
    assert {first.trial.number, second.trial.number} == {trial.number for trial in ranked[:2]}
    assert f"{first.mean:.4f} as the mean of 3 new seeds" in found.winner.config
    again = mnist_exp.run_sweep("sweep.resume=latest", quiet=True)
    assert len(list_runs(store, "tags.confirms IS NOT NULL")) == 6
    assert again.best.number == found.best.number
    assert "test/accuracy" not in runs[0].metrics


@pytest.mark.parametrize(("most", "said"), [(2, "2 trials in a row failed: ValueError"), (9, "must have a score with")])
def test_a_winner_that_no_new_seed_confirms_does_not_open_the_test_set(sweep, store, monkeypatch, most, said):
    def fail(job: Job) -> Outcome:
        raise ValueError("not with this seed")

    given = ("model.dropout=0.0,0.2", "sweep.confirm=2", "sweep.confirm_seeds=2")
    with monkeypatch.context() as patched:
        patched.setattr(confirm, "__defaults__", (fail,))
        with pytest.raises(TrainingError, match=said):
            sweep(*given, f"sweep.max_consecutive_failures={most}")
    (parent,) = list_runs(store, SWEEPS)
    assert not [key for key in (*parent.params, *parent.metrics) if key.startswith(("test_set/", "test/"))]
    found = mnist_exp.run_sweep("sweep.resume=latest", "sweep.confirm=null", quiet=True)
    assert found.winner
    assert not found.winner.confirmed
