import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mnist_exp
from mnist_exp import experiment
from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.config.run_config import RunConfig, plain
from mnist_exp.config.schema import Tracking
from mnist_exp.data.load import load_splits
from mnist_exp.errors import TrackingError
from mnist_exp.evaluation.predictions import digests_of
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.stored_run import fetch_run, read_metric_history
from mnist_exp.training.evaluate import encode_labels


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The default run in an empty folder, and what a listener heard of it."""
    folder = tmp_path_factory.mktemp("default")
    heard = []

    class Listening(experiment.Listener):
        def on_data(self, splits):
            heard.append("data")

        def on_start(self, active):
            heard.append("start")

        def on_model(self, model, config):
            heard.append("model")

        def on_epoch(self, epoch, metrics):
            heard.append(epoch)

        def on_evaluation(self):
            heard.append("evaluation")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = experiment.run(check(compose(["export=mnist.h5"])), Listening())
    return SimpleNamespace(result=result, heard=heard, folder=folder)


@pytest.fixture(scope="module")
def artifacts(done):
    (found,) = (done.folder / "mlruns" / "artifacts" / "digits").glob(f"{done.result.run_id}/artifacts")
    return found


def test_the_default_run_learns_the_digits(done):
    assert done.result.metrics["test/accuracy"] > 0.93
    assert done.result.metrics["val/accuracy"] > 0.9
    assert done.result.parameters == 784 * 128 + 128 + 128 * 10 + 10


def test_a_listener_hears_the_story_in_order(done):
    assert done.heard == ["data", "start", "model", *range(1, 13), "evaluation"]


def test_the_result_is_plain_values(done):
    assert json.loads(json.dumps(done.result.metrics)) == done.result.metrics
    assert len(done.result.history["val_loss"]) == 12
    assert done.result.history["val_accuracy"][-1] == pytest.approx(done.result.metrics["val/accuracy"], abs=1e-6)
    assert done.result.class_names == tuple("0123456789")
    assert done.result.seconds["training"] > 0


def test_the_model_comes_back_and_takes_raw_pixels(done, artifacts):
    splits = experiment.load_splits(check(compose([])))
    probabilities = done.result.load_model().predict(splits.test.images, verbose=0)
    with np.load(artifacts / "predictions.npz") as kept:
        assert np.array_equal(kept["test_predicted"], probabilities.argmax(axis=1))
        assert np.abs(kept["test_probabilities"].astype(np.float32) - probabilities).max() < 1e-3
        assert np.array_equal(kept["test_digests"], digests_of(splits.test))
        assert np.array_equal(kept["val_labels"], splits.validation.labels)


def test_every_figure_and_report_is_kept(artifacts):
    drawn = {"samples", "learning_curves", "confusion_test", "confusion_validation", "predictions"}
    drawn |= {"confident_mistakes", "per_class", "architecture"}
    assert {path.stem for path in (artifacts / "figures").glob("*.png")} == drawn
    assert {path.name for path in (artifacts / "reports").iterdir()} == {"val.txt", "val.json", "test.txt", "test.json"}
    assert "101,770" in (artifacts / "model_summary.txt").read_text()
    assert json.loads((artifacts / "history.json").read_text())["used_epoch"] == 12


def test_the_classic_h5_answers_like_the_model(done, artifacts):
    import keras

    few = experiment.load_splits(check(compose([]))).test.images[:20]
    again = keras.models.load_model(artifacts / "mnist.h5", compile=False)
    assert np.allclose(again.predict(few, verbose=0), done.result.load_model().predict(few, verbose=0), atol=1e-6)


def test_nothing_is_left_of_a_finished_run_but_the_store(done):
    assert sorted(path.name for path in (done.folder / "mlruns").glob("*") if path.is_dir()) == ["artifacts"]
    assert sorted(path.name for path in done.folder.iterdir()) == ["mlruns"]


def test_an_untracked_run_keeps_no_model_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = mnist_exp.run("tracking=off", "training=smoke", quiet=True)
    assert capsys.readouterr().out == ""
    assert result.run_id is None
    with pytest.raises(TrackingError, match="only if the run is tracked, but got 'tracking=off'"):
        result.load_model()


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model=cnn", "optimizer=sgd"], r"cnn-sgd-s3"),
        (["experiment=dense_100"], r"dense_100-s3"),
        (["model=cnn", "training.epochs=7"], r"cnn-adam-[0-9a-f]{6}-s3"),
    ],
)
def test_a_run_without_a_name_is_called_after_its_choices_and_what_differs_from_them(overrides, name):
    composed = compose([*overrides, "seed=3"])
    config = RunConfig(plain(composed.config), composed.choices)
    assert re.fullmatch(name, config.name)
    unknown = RunConfig(config.values, {**composed.choices, "model": "gone"})
    assert re.fullmatch(r"(gone-adam|gone-sgd|dense_100)-[0-9a-f]{6}-s3", unknown.name)


SMALL = ["dataset.size=8", "dataset.limit=400", "model.widths=[8]", "training.epochs=4"]


@pytest.mark.parametrize(
    "keys",
    [
        ["training.loss=categorical_crossentropy", "training.label_smoothing=0.2"],
        ["optimizer.learning_rate=100"],  # probabilities underflow
        ["optimizer.learning_rate=3", "training.weights=best", "training.checkpoint_monitor=val_loss"],
    ],
    ids=["smoothed", "underflow", "best weights"],
)
def test_the_store_holds_the_loss_that_the_stored_model_has(keys, tmp_path, monkeypatch):
    """In every epoch `val/loss` is what was optimized, and its newest value is that of the weights that were kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = check(compose([*SMALL, *keys]))
    result = experiment.run(config)
    store = connect(config.settings(Tracking))
    metrics = fetch_run(store, result.run_id).metrics
    model, splits = result.load_model(), load_splits(config)
    for name, part in splits.scored.items():
        loss, _, *more = model.evaluate(part.images, encode_labels(part.labels, model.loss, 10), verbose=0)
        assert metrics[f"{name}/loss"] == result.metrics[f"{name}/loss"] == pytest.approx(loss, rel=1e-6)
        assert metrics[f"{name}/cross_entropy"] == pytest.approx(more[0] if more else loss, rel=1e-6)
    for metric in ("val/loss", "val/cross_entropy"):
        points = read_metric_history(store, result.run_id, metric)
        assert len({step for step, _ in points}) == len(points)
        assert points[result.used_epoch - 1][1] == points[-1][1]
    with np.load(
        tmp_path / "mlruns" / "artifacts" / "digits" / result.run_id / "artifacts" / "predictions.npz"
    ) as kept:
        found = -kept["val_log_likelihoods"].mean(dtype=np.float64)
    assert found == pytest.approx(metrics["val/cross_entropy"], rel=1e-6)


def test_a_diverged_run_is_finished_and_called_diverged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = check(compose([*SMALL, "optimizer.learning_rate=1e10"]))
    result = experiment.run(config)
    run = fetch_run(connect(config.settings(Tracking)), result.run_id)
    assert result.diverged
    assert (run.status, run.tags["diverged"]) == ("FINISHED", "true")
    assert "**Diverged** The training ended much worse than guessing." in run.tags["mlflow.note.content"]
    assert run.metrics["test/cross_entropy"] > 1e6


def test_data_of_a_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sklearn.datasets import load_digits

    import mnist_exp

    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    result = mnist_exp.run("training.epochs=3", "dataset.name=mine", data=(digits.images / 16, digits.target))
    assert result.metrics["val/accuracy"] > 0.5
    printed = " ".join(capsys.readouterr().out.split())
    assert "numbers from 0 to 1 became whole numbers from 0 to 255" in printed
    (described,) = tmp_path.glob("mlruns/**/data.json")
    assert json.loads(described.read_text())["notes"][0].startswith("numbers from 0 to 1")
