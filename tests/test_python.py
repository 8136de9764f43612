"""The functions for Python: notebooks and scripts."""

from pathlib import Path

import numpy as np
import pytest

import mnist_exp
from mnist_exp.errors import ConfigError, TrackingError

SMALL = ("model.widths=[16]", "training=smoke", "dataset.limit=600")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("python")


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture(scope="module")
def sweep(folder: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return mnist_exp.run_sweep(*SMALL, "model.dropout=0.0,0.3", "optimizer=adam,sgd", quiet=True)


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str | None]:
    """A folder with a run, and the run's id."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        changed = ("model.widths=[16,8]", "training.freeze=[dense*,den*]", "optimizer.learning_rate=1e-5")
        return folder, mnist_exp.run(*SMALL, *changed, quiet=True).run_id


def test_a_sweep_returns_its_best_trial_all_trials_and_the_report(sweep):
    table = sweep.trials
    assert list(table.trial) == [0, 1, 2, 3]
    assert set(table.outcome) == {"complete"}
    assert sorted(set(table["model.dropout"])) == [0.0, 0.3]
    assert sweep.best.score == table.score.max()
    assert sweep.best.values["optimizer"] == table.optimizer[sweep.best.number]
    assert 0 < sweep.test["test/accuracy"] < 1
    assert sweep.report.read_text().startswith("<!doctype html>")
    assert repr(sweep).startswith("SweepResult('sweep', 4 trials, best: trial ")


def test_runs_are_found_as_a_table_the_best_first(sweep, here):
    found = mnist_exp.find_runs()
    assert len(found) == 4
    assert found["val/accuracy"].is_monotonic_decreasing
    assert found.run_id[0] == sweep.best.run_id
    assert len(mnist_exp.find_runs({"optimizer": "sgd"})) == 2
    assert len(mnist_exp.find_runs({"model.dropout": 0.3})) == 2
    assert mnist_exp.find_runs({"optimizer": "rmsprop"}).empty


@pytest.mark.parametrize(
    ("key", "value", "other"),
    [
        ("training.program_cache", True, False),
        ("training.class_weight", None, "balanced"),
        ("model.widths", [16, 8], [16]),
        ("training.freeze", ["dense*", "den*"], ["dense*"]),
        ("optimizer.learning_rate", 1e-5, 1e-4),
        ("model", "mlp", "cnn"),
    ],
)
def test_runs_are_found_by_values_as_their_configs_have_them(one_run, monkeypatch, key, value, other):
    folder, run_id = one_run
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert list(mnist_exp.find_runs({key: value}).run_id) == [run_id]
    assert mnist_exp.find_runs({key: other}).empty
    assert list(mnist_exp.compare(where={key: value}).table.id) == [run_id]


def test_the_predictions_of_a_run_give_its_accuracy(sweep, here):
    found = mnist_exp.predictions(sweep.best.run_id)
    right = found["val_probabilities"].argmax(axis=1) == found["val_labels"]
    assert np.mean(right) == pytest.approx(sweep.best.metrics["val/accuracy"])
    assert "test_labels" not in found


def test_the_model_of_the_best_trial_answers(sweep, here):
    model = mnist_exp.load_model(sweep.best.run_id)
    assert model.predict(np.zeros((2, 28, 28, 1), np.uint8), verbose=0).shape == (2, 10)


def test_runs_are_compared(sweep, here):
    ids = list(sweep.trials.run_id[:2])
    comparison = mnist_exp.compare(*ids)
    assert list(comparison.table.id) == ids
    assert "val/accuracy" in comparison.table
    assert any("Holm" in note for note in comparison.notes())


def test_errors_are_those_of_the_command_line(here, sweep):
    with pytest.raises(ConfigError, match="a sweep needs something to choose"):
        mnist_exp.run_sweep(*SMALL)
    with pytest.raises(ConfigError, match=r"model\.dropout must be less than 1"):
        mnist_exp.run_sweep("model.dropout=0.1,7")
    with pytest.raises(TrackingError, match="'nosuch'"):
        mnist_exp.predictions("nosuch")


def test_nothing_of_the_libraries_is_printed(here, capfd):
    mnist_exp.run(*SMALL, quiet=True)
    assert capfd.readouterr() == ("", "")
