"""Runs and trials on folds of the data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_exp import run
from mnist_exp.cli import main
from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.data.load import load_splits
from mnist_exp.tracking.store import Store, open_store
from mnist_exp.tracking.stored_run import StoredRun, fetch_run, read_run
from mnist_exp.training.trained import evaluate_unseen

FOLDS = ["dataset.folds=3", "dataset.limit=300", "model.widths=[16]", "training.epochs=4", "training.batch_size=16"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def store(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder}/mlruns/mlflow.db", folder / "mlruns")


def stored(folder: Path, run_id: str | None) -> StoredRun:
    assert run_id
    return read_run(store(folder), fetch_run(store(folder), run_id))


def test_a_run_is_scored_by_nets_that_have_not_seen_an_image(tmp_path: Path) -> None:
    result = run(*FOLDS, quiet=True)
    splits = load_splits(check(compose(FOLDS)))
    evaluation = result.evaluations["val"]
    assert len(evaluation.labels) == len(splits.train) == 300
    assert np.array_equal(evaluation.labels, splits.train.labels)
    model = result.load_model()
    for number in range(1, 4):
        fold = splits.fold(number)
        answers = np.asarray(model.get_layer(f"fold_{number}")(fold.validation.images, training=False))
        assert np.abs(answers - evaluation.probabilities[splits.folds[number - 1]]).max() < 1e-5
    assert np.abs(evaluate_unseen(model, splits).probabilities - evaluation.probabilities).max() < 1e-5
    run_of = stored(tmp_path, result.run_id)
    assert run_of.metrics["val/accuracy"] == pytest.approx(evaluation.accuracy)
    assert run_of.metrics["val/accuracy_low"] < evaluation.accuracy < run_of.metrics["val/accuracy_high"]
    assert {f"fold_{number}/val/accuracy" for number in (1, 2, 3)} <= run_of.metrics.keys()
    assert run_of.predictions is not None
    assert np.array_equal(run_of.predictions["val_labels"], splits.train.labels)


def test_the_model_of_a_run_is_the_average_and_answers_for_the_test_set() -> None:
    result = run(*FOLDS, quiet=True)
    splits = load_splits(check(compose(FOLDS)))
    assert splits.test is not None
    model = result.load_model()
    nets = [model.get_layer(f"fold_{number}") for number in (1, 2, 3)]
    mean = np.mean([np.asarray(net(splits.test.images, training=False)) for net in nets], axis=0)
    assert np.abs(mean - result.evaluations["test"].probabilities).max() < 1e-5
    assert np.abs(nets[0].get_weights()[0] - nets[1].get_weights()[0]).max() > 0


def test_the_curves_are_the_means_of_the_folds(tmp_path: Path) -> None:
    from mnist_exp.tracking.stored_run import read_metric_history

    result = run(*FOLDS, quiet=True)
    assert result.run_id
    curves = [
        [value for _, value in read_metric_history(store(tmp_path), result.run_id, f"fold_{number}/val/accuracy")]
        for number in (1, 2, 3)
    ]
    assert result.history["val_accuracy"] == pytest.approx(np.mean(curves, axis=0).tolist())


def test_the_same_run_twice_is_the_same(tmp_path: Path) -> None:
    first, second = (run(*FOLDS, quiet=True).load_model().get_weights() for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_run_that_is_interrupted_in_its_second_fold_goes_on_there(tmp_path: Path) -> None:
    from mnist_exp.experiment import configure
    from mnist_exp.experiment import run as run_experiment
    from mnist_exp.trainer import Listener

    class Interrupting(Listener):
        fold = 0

        def on_fold(self, fold: int, folds: int) -> None:
            self.fold = fold

        def on_epoch(self, epoch: int, metrics: Any) -> None:
            if (self.fold, epoch) == (2, 3):
                raise KeyboardInterrupt

    whole = run(*FOLDS, quiet=True)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(configure(compose([*FOLDS, "name=cut"])), Interrupting())
    seen: list[tuple[int, int]] = []

    class Watching(Interrupting):
        def on_epoch(self, epoch: int, metrics: Any) -> None:
            seen.append((self.fold, epoch))

    resumed = run_experiment(configure(compose(["training.resume=cut"])), Watching())
    assert seen[0] == (2, 3)
    assert np.array_equal(whole.evaluations["val"].probabilities, resumed.evaluations["val"].probabilities)
    assert whole.metrics == resumed.metrics


def test_a_sweep_over_folds_has_a_winner_and_leaves_out_folds_of_the_hopeless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    space = "optimizer.learning_rate=1e-2,1e-3,1e-8,3e-3,1e-7,1e-6,2e-3,1e-9"
    monkeypatch.setattr("sys.argv", ["mnist_exp", "-m", *FOLDS, space, "sweep.pruner=asha", "sweep.sampler=grid"])
    assert main() == 0, capfd.readouterr().out
    from mnist_exp.tracking.find import list_runs

    trials = list_runs(store(tmp_path), "tags.kind = 'trial'")
    counts = {
        run.params["optimizer.learning_rate"]: sum(f"fold_{n}/val/accuracy" in run.metrics for n in (1, 2, 3))
        for run in trials
    }
    assert counts["0.01"] == 3
    assert sum(count < 3 for count in counts.values()) >= 3
    winner = next(run for run in list_runs(store(tmp_path), "tags.kind = 'sweep'"))
    assert winner.tags["best_run"] in {run.id for run in trials if counts[run.params["optimizer.learning_rate"]] == 3}
    assert winner.metrics["test/accuracy"] > 0.5
