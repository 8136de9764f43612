"""Losses, metrics, callbacks, optimizers and schedules that a config names by `_target_`."""

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from mnist_exp import models
from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.config.schema import Optimizer, Training
from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.splits import Splits
from mnist_exp.errors import ConfigError, TrainingError
from mnist_exp.training import fit as training
from mnist_exp.training.augmentation import build_augmentation
from mnist_exp.training.build import build_metrics, build_optimizer, schedule_learning_rate
from mnist_exp.training.evaluate import check_accuracy
from mnist_exp.training.own_parts import check_loss, check_metrics
from mnist_exp.training.parent import freeze_layers

LEAST = 2e-6  # float32: a compiled program may add in another order
OPTIONS: dict[str, list[str]] = {
    "class_weight balanced": ["training.class_weight=balanced"],
    "class_weight by name": ["training.class_weight={a:3.0,c:0.5}"],
    "a loss of Keras's": ["training.loss={_target_:keras.losses.CategoricalFocalCrossentropy,gamma:1.5}"],
    "a function as loss": ["training.loss={_target_:own_training.focal,gamma:1.0}"],
    "a function that makes a loss": ["training.loss={_target_:own_training.make_focal,gamma:1.0}"],
    "a loss of integers": ["training.loss={_target_:own_training.sparse_hinge}"],
    "a metric": [
        "training.metrics=[{_target_:own_training.surprise},{_target_:keras.metrics.F1Score,average:macro}]",
    ],
    "a callback": ["training.callbacks=[{_target_:own_training.Remembering}]"],
    "clipnorm": ["optimizer.clipnorm=0.05"],
    "use_ema": ["optimizer.use_ema=true", "optimizer.ema_momentum=0.9"],
    "warmup before a constant rate": ["optimizer.warmup=0.5"],
    "warmup before a cosine": ["optimizer.warmup=0.5", "optimizer.schedule=cosine"],
    "a schedule of Keras's": ["optimizer.schedule={_target_:keras.optimizers.schedules.PolynomialDecay,power:2.0}"],
    "a schedule of Keras's after a warmup": [
        "optimizer.warmup=0.25",
        "optimizer.schedule={_target_:keras.optimizers.schedules.ExponentialDecay,decay_rate:0.5}",
    ],
    "a function as schedule": ["optimizer.schedule={_target_:own_training.staircase,every:7}"],
    "another optimizer of Keras's": ["optimizer=custom", "optimizer._target_=keras.optimizers.Lion"],
    "an optimizer of one's own": ["optimizer=custom", "optimizer._target_=own_training.Signs"],
    "augmentation for digits": ["augmentation=digits"],
    "augmentation for photos": ["augmentation=photos"],
    "a layer of Keras's as augmentation": ["augmentation=[{_target_:keras.layers.RandomFlip,mode:horizontal}]"],
    "a layer of one's own as augmentation": ["augmentation=[{_target_:own_training.Speckle,share:0.2}]"],
    "a function as augmentation": ["augmentation=[{_target_:own_training.invert}]"],
    "frozen layers": ["training.freeze=[dense]"],
}
WINDOWS = {"augmentation for digits", "augmentation for photos"}  # XLA cannot compile what moves pixels
# Each training takes seconds, so several options are tried in one. benchmarks/options.py tries each alone.
TOGETHER = [
    ("class_weight balanced", "a loss of Keras's", "clipnorm", "warmup before a cosine"),
    ("class_weight by name", "a loss of integers", "use_ema", "a schedule of Keras's after a warmup"),
    ("a function as loss", "a callback", "a layer of one's own as augmentation"),
    ("a metric", "a function as schedule", "frozen layers", "a layer of Keras's as augmentation"),
    (
        "a function that makes a loss",
        "another optimizer of Keras's",
        "a schedule of Keras's",
        "augmentation for digits",
    ),
    ("an optimizer of one's own", "warmup before a constant rate", "augmentation for photos"),
    ("a function as augmentation",),
]


@pytest.fixture(autouse=True)
def own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


@pytest.fixture(scope="module")
def splits() -> Splits:
    return make_splits()


def make_splits() -> Splits:
    """Three classes, one of them rare, of 6x6 images that differ in their brightest row."""
    generator = np.random.default_rng(0)

    def part(count: int) -> ImageSet:
        labels = generator.choice(3, count, p=[0.5, 0.4, 0.1])
        images = generator.integers(0, 120, (count, 6, 6, 1), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 2] += 90
        return ImageSet(images, labels)

    return Splits("rows", part(130), part(60), part(60), ("a", "b", "c"), "rows", "0" * 64)


class Fitted:
    """A training of a small net with these overrides."""

    def __init__(self, splits: Splits, folder: Path, *overrides: str, epochs: int = 4) -> None:
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        given = ["training.batch_size=16", f"training.epochs={epochs}", "optimizer.learning_rate=0.02", *overrides]
        config = check(compose(given))
        self.settings = config.settings(Training)
        none = {"translation": 0.0, "rotation": 0.0, "zoom": 0.0}
        self.model = models.mlp(
            (6, 6, 1), 3, widths=[8], activation="relu", dropout=0.2, batch_norm=False, augmentation=none
        )
        if self.settings.freeze is not None:
            freeze_layers(self.model, self.settings.freeze)
        self.notes: list[str] = []
        steps = 4 * -(-len(splits.train) // 16)
        self.history, self.validation = training.fit(
            self.model,
            build_optimizer(config, steps),
            splits,
            self.settings,
            0,
            folder,
            build_augmentation(config),
            on_note=self.notes.append,
        )
        check_accuracy(self.history, {"val": self.validation})

    @property
    def weights(self) -> np.ndarray:
        return np.concatenate([weight.numpy().ravel() for weight in self.model.weights[:4]])


@pytest.mark.parametrize("together", TOGETHER, ids=" and ".join)
def test_a_program_computes_what_fit_computes(together: tuple[str, ...], splits: Splits, tmp_path: Path) -> None:
    given = [override for option in together for override in OPTIONS[option]]
    whole = Fitted(splits, tmp_path / "whole", *given, "training.compiled_epoch=on")
    plain = Fitted(splits, tmp_path / "off", *given, "training.compiled_epoch=off")
    assert whole.history.mode == ("windows" if WINDOWS.intersection(together) else "xla")
    assert plain.history.mode == "off"
    assert np.abs(whole.weights - plain.weights).max() <= LEAST
    for ours, theirs in zip(whole.history.epochs, plain.history.epochs, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4, abs=2e-5)
    Fitted(splits, tmp_path / "cut", *given, "training.compiled_epoch=on", epochs=2)
    resumed = Fitted(splits, tmp_path / "cut", *given, "training.compiled_epoch=on")
    assert np.array_equal(resumed.weights, whole.weights)
    assert resumed.history == whole.history


@pytest.mark.parametrize("name", ["FreezesAtFirst", "SetsBeta"])
def test_what_a_callback_changes_at_the_beginning_has_its_effect(name: str, splits: Splits, tmp_path: Path) -> None:
    own = f"training.callbacks=[{{_target_:own_training.{name}}}]"
    modes = [f"training.compiled_epoch={mode}" for mode in ("on", "off")]
    whole, plain = (Fitted(splits, tmp_path / mode[-3:], own, mode, epochs=2) for mode in modes)
    without = Fitted(splits, tmp_path / "without", modes[0], epochs=2)
    assert np.abs(whole.weights - plain.weights).max() <= LEAST
    assert np.abs(whole.weights - without.weights).max() > 100 * LEAST


@pytest.mark.parametrize("mode", ["on", "off"])
def test_a_training_that_was_killed_after_its_last_epoch_ends_as_it_would_have(
    mode: str, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "training.callbacks=[{_target_:own_training.StopsAfter,epochs:2},{_target_:own_training.HalvesAtTheEnd}]"
    whole = Fitted(splits, tmp_path / "whole", own, f"training.compiled_epoch={mode}")
    with monkeypatch.context() as patched:
        patched.setattr("own_training.HalvesAtTheEnd.on_train_end", lambda callback, logs=None: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Fitted(splits, tmp_path / "cut", own, f"training.compiled_epoch={mode}")
    resumed = Fitted(splits, tmp_path / "cut", own, f"training.compiled_epoch={mode}")
    assert len(resumed.history.epochs) == 2
    assert np.array_equal(resumed.weights, whole.weights)


def test_every_option_is_in_one_of_these_trainings_and_changes_it(splits: Splits, tmp_path: Path) -> None:
    assert sorted(itertools.chain(*TOGETHER)) == sorted(OPTIONS)
    default = Fitted(splits, tmp_path / "default", epochs=1).weights
    for option in ("class_weight balanced", "clipnorm", "a function as schedule", "frozen layers"):
        changed = Fitted(splits, tmp_path / option.replace(" ", "_"), *OPTIONS[option], epochs=1).weights
        assert np.abs(changed - default).max() > 100 * LEAST, option


@pytest.mark.parametrize("classes", [3, 5])
@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["training.loss={_target_:own_training.focal}", "training.class_weight=balanced"], ""),
        (["training.loss={_target_:own_training.sparse_hinge}", "training.class_weight=balanced"], ""),
        (["training.loss={_target_:keras.losses.CategoricalHinge}", "training.class_weight=balanced"], ""),
        (["training.loss={_target_:own_training.mean_focal}"], ""),
        (["training.class_weight=balanced"], ""),
        (
            ["training.loss={_target_:own_training.mean_focal}", "training.class_weight=balanced"],
            "training.loss must return one number for each image, which training.class_weight weighs, but returned one "
            "for all; leave out the mean over the images, or training.class_weight",
        ),
        (
            ["training.loss={_target_:own_training.MeanFocal}", "training.class_weight={a:2.0}"],
            "training.loss must return one number for each image, which training.class_weight weighs",
        ),
        (
            ["training.loss={_target_:own_training.per_class}"],
            "training.loss must return one number for each image, but",
        ),
    ],
)
def test_the_shape_of_what_a_loss_returns_is_checked(given: list[str], line: str, classes: int) -> None:
    settings = check(compose(given)).settings(Training)
    if not line:
        check_loss(settings, classes)
        return
    with pytest.raises(ConfigError) as refused:
        check_loss(settings, classes)
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_a_metric_gives_one_number(loss: str) -> None:
    metrics = "training.metrics=[{{_target_:keras.metrics.AUC}},{{_target_:keras.metrics.F1Score{}}}]"
    for given in ("", ",average:macro"):
        settings = check(compose([f"training.loss={loss}", metrics.format(given)])).settings(Training)
        if given:
            keras.backend.clear_session()
            check_metrics(settings, 3)
            assert [metric.name for metric in build_metrics(settings)] == ["auc", "f1_score"]
            continue
        with pytest.raises(ConfigError) as refused:
            check_metrics(settings, 3)
        assert str(refused.value) == (
            "training.metrics[1] must give one number, but f1_score gives an array of shape (3,); average over the "
            "classes, as average:macro does for F1Score"
        )


METRICS = {  # by name: an entry, and the metric of every run that has the same value
    "categorical": ("keras.metrics.CategoricalAccuracy,name:categorical", "accuracy"),
    "sparse": ("keras.metrics.SparseCategoricalAccuracy,name:sparse", "accuracy"),
    "first": ("keras.metrics.TopKCategoricalAccuracy,k:1,name:first", "accuracy"),
    "micro": ("keras.metrics.F1Score,average:micro,name:micro", "accuracy"),
    "entropy": ("keras.metrics.CategoricalCrossentropy,name:entropy", "loss"),
    "sparse_categorical_crossentropy": ("keras.metrics.sparse_categorical_crossentropy", "loss"),
    "hit": ("own_training.hit", "accuracy"),
    "sparse_hit": ("own_training.sparse_hit", "accuracy"),
}
SOFT = ("MeanSquaredError", "CosineSimilarity", "Precision")


@pytest.mark.parametrize(
    ("loss", "mode"),
    [
        ("sparse_categorical_crossentropy", "on"),
        ("sparse_categorical_crossentropy", "off"),
        ("categorical_crossentropy", "on"),
    ],
)
def test_each_metric_gets_the_targets_that_it_needs(loss: str, mode: str, splits: Splits, tmp_path: Path) -> None:
    entries = [f"{{_target_:{entry}}}" for entry, _ in METRICS.values()]
    entries += [f"{{_target_:keras.metrics.{name},name:{name}}}" for name in SOFT]
    given = [f"training.loss={loss}", f"training.metrics=[{','.join(entries)}]", f"training.compiled_epoch={mode}"]
    fitted = Fitted(splits, tmp_path, *given, epochs=2)
    last = fitted.history.epochs[-1]
    targets, answers = np.eye(3, dtype="float32")[splits.validation.labels], fitted.validation.probabilities
    for name, (_, same) in METRICS.items():
        for split in ("", "val_"):
            assert last[f"{split}{name}"] == pytest.approx(last[f"{split}{same}"], rel=1e-4), name
    for name in SOFT:
        assert last[f"val_{name}"] == pytest.approx(float(getattr(keras.metrics, name)()(targets, answers)), rel=1e-4)


def test_training_targets_decides_for_metrics_of_ones_own_alone() -> None:
    metrics = "training.metrics=[{_target_:own_training.hit},{_target_:keras.metrics.F1Score,average:macro}]"
    config = check(compose([metrics, "training.targets=integers"]))
    own, f1 = build_metrics(config.settings(Training))
    labels, answers = np.array([0, 1, 2]), np.eye(3, dtype="float32")
    own.update_state(labels, answers)
    f1.update_state(labels, answers)
    assert float(own.result()) < 1.0  # it has got the integers, of which it takes the largest
    assert float(f1.result()) == pytest.approx(1.0)


def test_a_callback_without_memory_is_named_when_it_is_resumed(splits: Splits, tmp_path: Path) -> None:
    keys = ["training.callbacks=[{_target_:own_training.Forgetting}]"]
    assert Fitted(splits, tmp_path, *keys, epochs=2).notes == []
    (note,) = Fitted(splits, tmp_path, *keys).notes
    assert note == "Forgetting begins anew: without get_state() and set_state() it is not resumed with the training"


def test_what_a_callback_remembers_must_be_plain(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"^training.callbacks must return plain values of JSON from get_state\(\)"):
        Fitted(splits, tmp_path, "training.callbacks=[{_target_:own_training.Unprintable}]")


@pytest.mark.parametrize(
    "callback",
    ["own_training.CountBatches", "keras.callbacks.TerminateOnNaN"],
)
def test_a_callback_that_hears_of_batches_gets_every_one(callback: str, splits: Splits, tmp_path: Path) -> None:
    fitted = Fitted(splits, tmp_path, f"training.callbacks=[{{_target_:{callback}}}]", "training.compiled_epoch=on")
    assert fitted.history.mode == "off"
    name = callback.rpartition(".")[2]
    assert fitted.notes == [f"{name} hears of every batch, so each batch is a call, as in model.fit"]


@pytest.mark.parametrize("mode", ["on", "off"])
def test_the_weights_that_early_stopping_restores_are_those_that_count(
    mode: str, splits: Splits, tmp_path: Path
) -> None:
    entry = "{_target_:keras.callbacks.EarlyStopping,monitor:val_loss,patience:2,restore_best_weights:true}"
    given = [f"training.callbacks=[{entry}]", f"training.compiled_epoch={mode}", "optimizer.learning_rate=0.5"]
    fitted = Fitted(splits, tmp_path, *given, epochs=30)
    losses = fitted.history.curves()["val_loss"]
    best = int(np.argmin(losses)) + 1
    assert len(losses) == best + 2
    assert (fitted.history.used_epoch, fitted.history.is_of_epoch) == (best, True)
    assert fitted.validation.loss == pytest.approx(losses[best - 1], rel=1e-5)


@pytest.mark.parametrize("mode", ["on", "off"])
@pytest.mark.parametrize(
    "given", [["training.callbacks=[{_target_:own_training.Blend}]"], ["optimizer.use_ema=true"]], ids=["blend", "ema"]
)
def test_weights_of_no_epoch_are_evaluated_as_they_are(
    given: list[str], mode: str, splits: Splits, tmp_path: Path
) -> None:
    fitted = Fitted(splits, tmp_path, *given, f"training.compiled_epoch={mode}")
    assert (fitted.history.used_epoch, fitted.history.is_of_epoch) == (4, False)
    answers = np.asarray(fitted.model(splits.validation.images, training=False))
    assert np.abs(answers - fitted.validation.probabilities).max() < 1e-6
    assert fitted.validation.loss != pytest.approx(fitted.history.epochs[-1]["val_loss"], rel=1e-3)


def test_time_ends_a_training_after_an_epoch_and_more_time_goes_on(splits: Splits, tmp_path: Path) -> None:
    short = Fitted(splits, tmp_path, "training.timeout=1e-6")
    assert len(short.history.epochs) == 1
    assert len(Fitted(splits, tmp_path, "training.timeout=1e-6").history.epochs) == 1
    assert len(Fitted(splits, tmp_path, "training.timeout=1000").history.epochs) == 4


def test_balanced_classes_weigh_the_same(splits: Splits) -> None:
    from mnist_exp.training.build import weigh_classes

    settings = check(compose(["training.class_weight=balanced"])).settings(Training)
    weights = weigh_classes(settings, splits.train.labels, splits.class_names)
    assert weights is not None
    sums = [weights[splits.train.labels == label].sum() for label in range(3)]
    assert sums == pytest.approx([len(splits.train) / 3] * 3, rel=1e-5)


def test_a_schedule_begins_at_the_rate_and_lasts_for_the_training() -> None:
    keys = {"learning_rate": 0.1, "warmup": 0.2, "clipnorm": None}
    entry = {"_target_": "keras.optimizers.schedules.PolynomialDecay", "end_learning_rate": 0.01}
    schedule: Any = schedule_learning_rate(Optimizer(schedule=entry, **keys), 100)
    values = [float(schedule(step)) for step in (0, 10, 20, 60, 100)]
    assert values == pytest.approx([0.0, 0.05, 0.1, 0.055, 0.01])


@pytest.mark.parametrize("steps", [1, 2, 30])
@pytest.mark.parametrize("schedule", ["constant", "cosine", {"_target_": "keras.optimizers.schedules.PolynomialDecay"}])
def test_a_long_warmup_leaves_a_step_for_what_follows(schedule: Any, steps: int) -> None:
    made: Any = schedule_learning_rate(Optimizer(learning_rate=0.1, warmup=0.99, schedule=schedule), steps)
    rates = [float(made(step)) if callable(made) else made for step in range(steps)]
    assert rates[-1] == pytest.approx(0.1)
    assert rates == sorted(rates)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            "training.loss=mse",
            "training.loss must be sparse_categorical_crossentropy, categorical_crossentropy or {_target_: NAME,",
        ),
        ("training.loss={gamma:2}", "training.loss must name an object by its _target_, but got {'gamma': 2}"),
        (
            "training.loss={_target_:own_training.nothing}",
            "training.loss._target_ must be a class or function that can be imported",
        ),
        (
            "training.loss={_target_:own_training.focal,gama:2}",
            "training.loss.gama does not exist; did you mean gamma?",
        ),
        (
            "training.loss={_target_:own_training.make_focal}",
            "training.loss.gamma is missing; give gamma, which own_training.make_focal needs",
        ),
        ("training.metrics=[accuracy]", "training.metrics[0] must"),
        (
            "training.callbacks=[{_target_:own_training.nothing}]",
            "training.callbacks[0]._target_ must be a class or function",
        ),
        (
            "training.class_weight=equal",
            "training.class_weight must be null, balanced or {class name: weight}, but got 'equal'",
        ),
        ("training.class_weight={a:-1.0}", "training.class_weight must be null, balanced or {class name: weight}"),
        ("training.timeout=0", "training.timeout must be greater than 0, but got 0"),
        (
            "optimizer.schedule=linear",
            "optimizer.schedule must be constant, cosine or {_target_: NAME, key: value}, but got 'linear'",
        ),
        ("optimizer=custom", "optimizer._target_ is missing; give optimizer._target_=..."),
        ("optimizer.clipnorm=-1", "optimizer.clipnorm must be greater than 0, but got -1"),
    ],
)
def test_a_wrong_entry_is_answered_before_training(given: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(compose([given]))
    assert line in str(refused.value)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["training.loss={_target_:keras.layers.Dense,units:3}"], "training.loss must make a loss of Keras's"),
        (["training.callbacks=[{_target_:keras.layers.Dense,units:3}]"], "training.callbacks[0] must make a callback"),
        (
            ["training.metrics=[{_target_:keras.metrics.Mean,name:loss}]"],
            "training.metrics[0].name must have a name that no other",
        ),
        (
            ["training.class_weight={d:2.0}"],
            "training.class_weight must name classes of the data set: a, b, c, but got ['d']",
        ),
        (
            ["optimizer=custom", "optimizer._target_=own_training.make_focal", "+optimizer.gamma=1.0"],
            "optimizer._target_ must take learning_rate, but own_training.make_focal takes gamma",
        ),
    ],
)
def test_an_entry_that_makes_something_else_is_answered(
    given: list[str], line: str, splits: Splits, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        Fitted(splits, tmp_path, *given)
    assert line in str(refused.value)
