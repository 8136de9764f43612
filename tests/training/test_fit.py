import json
import os
import signal
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from omegaconf import OmegaConf

from mnist_exp import models
from mnist_exp.config.compose import CONF
from mnist_exp.config.schema import Training
from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.splits import Splits
from mnist_exp.errors import TrainingError
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.signals import raise_on_signals
from mnist_exp.training import fit as training
from mnist_exp.training.evaluate import check_accuracy, encode_labels, evaluate


@pytest.fixture(scope="module")
def splits():
    """Four classes of 6x6 images that differ in their brightest quarter: learnt in a few epochs."""
    rng = np.random.default_rng(0)

    def part(n):
        labels = rng.integers(0, 4, n)
        images = rng.integers(0, 120, (n, 6, 6, 1), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(label, 2)
            image[row * 3 : row * 3 + 3, column * 3 : column * 3 + 3] += 100
        return ImageSet(images, labels)

    return Splits("quarters", part(130), part(60), part(60), ("a", "b", "c", "d"), "quarters", "0" * 64)


OFF = {"compiled_epoch": "off"}  # spares the compilation by XLA where the mode makes no difference


def settings(**keys):
    return Training(
        **(OmegaConf.to_container(OmegaConf.load(CONF / "training" / "default.yaml")) | {"epochs": 4} | keys)
    )


def fit(splits, folder, seed=0, dropout=0.2, rate=0.01, **keys):
    keras.utils.set_random_seed(seed)
    none = {"translation": 0.0, "rotation": 0.0, "zoom": 0.0}
    model = models.mlp(
        (6, 6, 1), 4, widths=[8], activation="relu", dropout=dropout, batch_norm=False, augmentation=none
    )
    heard = []
    history, _ = training.fit(
        model, keras.optimizers.Adam(rate), splits, settings(**keys), seed, folder,
        on_epoch=lambda epoch, metrics: heard.append((epoch, metrics)),
    )  # fmt: skip
    return model, history, heard


def assert_same(some, other):
    assert some.loss == pytest.approx(other.loss, rel=1e-6)
    assert np.abs(some.probabilities - other.probabilities).max() < 1e-6


def weights_of(model):
    return np.concatenate([weight.numpy().ravel() for weight in model.trainable_weights])


def test_a_run_learns_and_tells_of_every_epoch(splits, tmp_path):
    model, history, heard = fit(splits, tmp_path, epochs=15)
    assert history.epochs[-1]["val_accuracy"] > 0.9
    assert [epoch for epoch, _ in heard] == list(range(1, 16))
    assert heard[0][1]["learning_rate"] == pytest.approx(0.01)
    assert history.used_epoch == 15
    assert history.mode == "xla"
    assert model.evaluate(splits.validation.images, splits.validation.labels, verbose=0)[1] == pytest.approx(
        history.epochs[-1]["val_accuracy"]
    )


def test_the_same_seed_repeats_a_training_and_another_does_not(splits, tmp_path):
    first, second, other = (fit(splits, tmp_path / str(n), seed, **OFF)[0] for n, seed in enumerate([3, 3, 4]))
    assert np.array_equal(weights_of(first), weights_of(second))
    assert not np.array_equal(weights_of(first), weights_of(other))


def test_best_weights_are_those_of_the_epoch_the_checkpoint_watched(splits, tmp_path):
    model, history, _ = fit(splits, tmp_path, epochs=6, rate=0.5, weights="best", checkpoint_monitor="val_loss")
    losses = history.curves()["val_loss"]
    assert history.used_epoch == int(np.argmin(losses)) + 1 < 6
    loss, _ = model.evaluate(splits.validation.images, splits.validation.labels, verbose=0)
    assert loss == pytest.approx(min(losses), rel=1e-5)


def test_early_stopping_and_the_checkpoint_watch_what_each_is_told(splits, tmp_path):
    _, history, _ = fit(
        splits, tmp_path, epochs=60, rate=0.5, weights="best", checkpoint_monitor="val_accuracy",
        early_stopping_monitor="val_loss", early_stopping_patience=3, **OFF,
    )  # fmt: skip
    losses = history.curves()["val_loss"]
    assert len(losses) == int(np.argmin(losses)) + 1 + 3 < 60
    assert history.used_epoch == history.best_epoch("val_accuracy")


def test_reduce_lr_shrinks_the_learning_rate_on_a_plateau(splits, tmp_path):
    _, _, heard = fit(splits, tmp_path, epochs=12, rate=0.5, reduce_lr_patience=1, reduce_lr_factor=0.1, **OFF)
    rates = [metrics["learning_rate"] for _, metrics in heard]
    assert rates[0] == pytest.approx(0.5)
    assert rates[-1] < 0.06


@pytest.mark.parametrize(
    "keys", [{}, {"compiled_epoch": "off"}, {"reduce_lr_patience": 1, "early_stopping_patience": 4}]
)
def test_a_training_cut_in_two_ends_as_one_in_one_piece(splits, tmp_path, keys):
    """Optimizer state, dropout's random state, order of the images and the callbacks' patience go on."""
    whole, history, heard = fit(splits, tmp_path / "whole", epochs=7, rate=0.1, **keys)
    fit(splits, tmp_path / "cut", epochs=3, rate=0.1, **keys)
    model, resumed, later = fit(splits, tmp_path / "cut", seed=0, epochs=7, rate=0.1, **keys)
    assert resumed.epochs == history.epochs
    assert np.array_equal(weights_of(model), weights_of(whole))
    assert later == heard[3:]


def test_a_training_that_had_stopped_early_is_not_taken_up_again(splits, tmp_path):
    keys = {"epochs": 60, "rate": 0.5, "early_stopping_patience": 2, **OFF}
    _, history, _ = fit(splits, tmp_path, **keys)
    _, again, heard = fit(splits, tmp_path, **keys)
    assert again.epochs == history.epochs
    assert heard == []


def test_a_half_written_checkpoint_is_passed_over(splits, tmp_path):
    """Killed between the weights and the state: the state names complete files only."""
    fit(splits, tmp_path, epochs=2, **OFF)
    (tmp_path / "epoch-00003.npy").write_bytes(b"half")
    (tmp_path / "state.json.new").write_text("{")
    _, history, heard = fit(splits, tmp_path, epochs=4, **OFF)
    assert len(history.epochs) == 4
    assert [epoch for epoch, _ in heard] == [3, 4]


def test_checkpoints_keep_the_last_and_the_best_epoch_only(splits, tmp_path):
    _, history, _ = fit(splits, tmp_path, epochs=6, **OFF)
    kept = {path.name for path in tmp_path.glob("epoch-*")}
    assert kept == {f"epoch-{epoch:05d}.npy" for epoch in (6, history.best_epoch("val_accuracy"))}
    assert len(json.loads((tmp_path / "state.json").read_text())["epochs"]) == 6


def test_a_loss_that_is_not_finite_ends_the_training_with_the_remedy(splits, tmp_path):
    with pytest.raises(TrainingError, match=r"was (nan|inf) in epoch \d.*lower optimizer.learning_rate \(now 1e\+30\)"):
        fit(splits, tmp_path, rate=1e30)


def test_one_hot_targets_with_smoothing_and_without(splits, tmp_path):
    _, sparse, _ = fit(splits, tmp_path / "sparse", **OFF)
    _, plain, _ = fit(splits, tmp_path / "plain", loss="categorical_crossentropy", **OFF)
    _, smooth, _ = fit(splits, tmp_path / "smooth", loss="categorical_crossentropy", label_smoothing=0.2, **OFF)
    assert plain.curves()["loss"] == pytest.approx(sparse.curves()["loss"], rel=1e-4)
    assert smooth.epochs[-1]["loss"] > plain.epochs[-1]["loss"]


def test_overfitting_one_batch_drives_its_loss_to_nearly_nothing(splits, tmp_path):
    _, history, _ = fit(splits, tmp_path, dropout=0.0, rate=0.05, epochs=100, batches=1)
    assert history.epochs[-1]["loss"] < 0.05
    assert history.epochs[-1]["accuracy"] == 1.0


def test_one_batch_holds_every_class_of_images_that_lie_class_by_class(splits, tmp_path):
    """As those of dataset=folder do."""
    by_class = replace(splits, train=splits.train[np.argsort(splits.train.labels, kind="stable")])
    _, history, _ = fit(by_class, tmp_path, dropout=0.0, rate=0.05, epochs=30, batches=1, **OFF)
    assert history.epochs[-1]["val_accuracy"] > 0.5  # with one class it would be a quarter


def test_batches_limit_the_images_of_an_epoch():
    few = settings(batches=2, batch_size=32, epochs=5)
    assert few.images_used(130) == 64
    assert few.steps(130) == 10
    assert settings(batch_size=32, epochs=5).steps(130) == 25


def test_an_accuracy_that_keras_does_not_confirm_is_an_error(monkeypatch):
    """The check between the confusion matrix, Keras's metric and the last epoch's validation can fail, and does."""
    probabilities = np.array([[1, 0], [0, 1], [0, 1], [1, 0]], np.float32)
    evaluations = {"val": Evaluation(np.array([0, 1, 1, 0]), probabilities, ("a", "b"))}
    history = History([{"val_accuracy": 1.0}], used_epoch=1)
    check_accuracy(history, evaluations)
    with pytest.raises(RuntimeError, match=r"gives an accuracy of 1\.0, but Keras reports 0\.75"):
        check_accuracy(History([{"val_accuracy": 0.75}], used_epoch=1), evaluations)

    monkeypatch.setattr(keras.metrics, "sparse_categorical_accuracy", lambda labels, _: np.full(len(labels), 0.5))
    with pytest.raises(RuntimeError, match=r"Keras reports 0\.5"):
        check_accuracy(history, evaluations)


def custom(*, penalty=None, softmax=True):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Dense(4, activation="softmax" if softmax else "exponential", kernel_regularizer=penalty)(x)
    return keras.Model(inputs, x if softmax else x / keras.ops.sum(x, axis=1, keepdims=True))


SMOOTH = {"loss": "categorical_crossentropy", "label_smoothing": 0.2}


@pytest.mark.parametrize(
    ("net", "keys", "rate"),
    [
        ({}, {}, 0.01),
        ({}, SMOOTH, 0.01),
        ({"penalty": "l2"}, {}, 0.01),
        ({"penalty": "l2"}, SMOOTH, 0.01),
        ({}, {}, 1e4),
        ({}, {"weights": "best", "checkpoint_monitor": "val_loss"}, 3.0),
    ],
    ids=["plain", "smoothed", "penalized", "both", "probabilities underflow", "best weights"],
)
def test_val_loss_is_what_keras_evaluates_and_val_cross_entropy_the_same_in_every_epoch(
    splits, tmp_path, net, keys, rate
):
    """After the training, too, and for the model as it is stored."""
    model, chosen = custom(**net), settings(**keys, **OFF)
    history, found = training.fit(model, keras.optimizers.Adam(rate), splits, chosen, 0, tmp_path)
    part = splits.validation
    assert_same(found, evaluate(model, part, splits.class_names))
    assert found.loss == pytest.approx(history.used["val_loss"], rel=1e-6)
    assert found.cross_entropy == pytest.approx(history.used["val_cross_entropy"], rel=1e-6)
    assert (found.loss - found.cross_entropy > 1e-3) == bool("penalty" in net or "label_smoothing" in keys)
    if rate == 1e4:
        assert (found.probabilities[np.arange(len(part)), part.labels] == 0).any()
    model.save(tmp_path / "model.keras")
    stored = keras.models.load_model(tmp_path / "model.keras")
    targets = encode_labels(part.labels, stored.loss, 4)
    assert stored.evaluate(part.images, targets, verbose=0)[0] == pytest.approx(found.loss, rel=1e-6)


def test_a_net_without_a_softmax_has_its_cross_entropy_at_the_end_only(splits, tmp_path):
    """Keras clips its probabilities, so what it reports of an epoch is another number."""
    model = custom(softmax=False)
    history, found = training.fit(model, keras.optimizers.Adam(0.01), splits, settings(**OFF), 0, tmp_path)
    assert "val_cross_entropy" not in history.used
    assert_same(found, evaluate(model, splits.validation, splits.class_names))
    assert found.logits is None
    assert found.cross_entropy == pytest.approx(history.used["val_loss"], rel=1e-5)  # nothing is clipped here


def test_a_validation_loss_that_is_not_finite_ends_the_training(splits, tmp_path):
    """The last step of an epoch may break the weights after the loss of the training was computed."""
    with pytest.raises(TrainingError, match=r"the loss of the validation images must stay finite, but was nan"):
        fit(splits, tmp_path, rate=1e38, epochs=1, batch_size=130, **OFF)


def test_a_training_that_a_sweep_has_stopped_goes_on_when_it_is_continued(splits, tmp_path):
    """A promoted trial of Hyperband trains, also if its parent was pruned."""
    model, keys = custom(), settings(**OFF)
    stopped, _ = training.fit(
        model, keras.optimizers.Adam(0.01), splits, keys, 0, tmp_path, on_epoch=lambda epoch, metrics: epoch == 2
    )
    assert len(stopped.epochs) == 2
    assert len(training.fit(custom(), keras.optimizers.Adam(0.01), splits, keys, 0, tmp_path)[0].epochs) == 4


class Interrupting:
    """Receives Ctrl-C in its destructor, where Python drops an exception and goes on, as in a weak reference's."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        while True:  # the handler runs between two of these
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("mode", ["off", "on"])
def test_ctrl_c_that_python_swallows_ends_the_training_at_its_next_step(splits, tmp_path, mode):
    heard = []

    def on_epoch(epoch, metrics):
        heard.append(epoch)
        if epoch == 2:
            Interrupting()

    keys = settings(compiled_epoch=mode)
    with pytest.raises(KeyboardInterrupt), raise_on_signals():
        training.fit(custom(), keras.optimizers.Adam(0.01), splits, keys, 0, tmp_path, on_epoch=on_epoch)
    assert heard == [1, 2]
