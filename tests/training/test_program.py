import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from omegaconf import OmegaConf

from mnist_exp import models
from mnist_exp.config.compose import CONF
from mnist_exp.config.schema import Training
from mnist_exp.data.dataset import ImageSet
from mnist_exp.training import program as programs
from mnist_exp.training.batches import BatchOrder
from mnist_exp.training.loop import PlainLoop, ProgramLoop
from mnist_exp.training.modes import choose_mode
from mnist_exp.training.program_cache import ProgramCache

NO_AUGMENTATION = {"translation": 0.0, "rotation": 0.0, "zoom": 0.0}
IMAGES, BATCH, EPOCHS = 150, 32, 3  # a short last batch of 22
NAMES = tuple("0123456789")
ROUNDING = 1e-6


def make_mlp(**keys):
    given = {"widths": [16], "activation": "relu", "dropout": 0.0, "batch_norm": False, "augmentation": NO_AUGMENTATION}
    return models.mlp((8, 8, 1), 10, **(given | keys))


def make_cnn(**augmentation):
    return models.cnn(
        (8, 8, 1), 10, blocks=[[4]], kernel=3, padding="same", pooling=2, block_dropout=0.2, dense=[8],
        dense_dropout=0.2, activation="relu", batch_norm=True, augmentation=NO_AUGMENTATION | augmentation,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return ImageSet(rng.integers(0, 256, (IMAGES, 8, 8, 1), dtype=np.uint8), rng.integers(0, 10, IMAGES))


@pytest.fixture
def none_kept(monkeypatch):
    monkeypatch.setattr(programs, "_kept", type(programs._kept)())


def settings(**keys):
    plain = OmegaConf.to_container(OmegaConf.load(CONF / "training" / "default.yaml"))
    return Training(**(plain | {"batch_size": BATCH, "program_cache": False} | keys))


class Heard(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.steps, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append((batch, set(logs)))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))


def trained(data, mode, make=make_mlp, optimizer=None, loss=None, jit_compile=False, seed=1):
    """The model, the loop and what a callback heard, after a few epochs in this mode. Every model has other data."""
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    model = make()
    optimizer = optimizer() if optimizer else keras.optimizers.Adam(0.01)
    loss = loss or keras.losses.SparseCategoricalCrossentropy()
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=jit_compile)
    given = model, data, data[:70], NAMES, settings(), 5
    loop, heard = PlainLoop(*given) if mode == "off" else ProgramLoop(*given, mode), Heard()
    loop.begin(0, EPOCHS, [heard])
    loop.fit()
    return model, loop, heard


def state(model):
    return [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]


def largest_difference(some, other):
    pairs = zip(state(some), state(other), strict=True)
    return max(float(np.abs(a.astype(float) - b.astype(float)).max()) for a, b in pairs)


def test_the_order_visits_every_image_once_an_epoch_and_is_a_function_of_seed_and_epoch():
    order = BatchOrder(IMAGES, BATCH, seed=5)
    first = order.permutation.copy()
    assert sorted(first) == list(range(IMAGES))
    order.begin(1)
    assert not np.array_equal(order.permutation, first)
    order.begin(0)
    assert np.array_equal(order.permutation, first)
    assert not np.array_equal(BatchOrder(IMAGES, BATCH, seed=6).permutation, first)


@pytest.mark.parametrize("size", [1, 3, 4, 100])
@pytest.mark.parametrize("images", [150, 160, 20])
def test_windows_hold_the_full_batches_in_order_and_the_short_one_is_alone(images, size):
    order = BatchOrder(images, BATCH, seed=0)
    windows = list(order.windows(size))
    assert {window.shape for window, _ in windows} == {(size, BATCH)}
    found = [window[:steps].ravel() for window, steps in windows]
    assert np.array_equal(np.concatenate([*found, order.last]), order.permutation)
    assert order.batches == sum(steps for _, steps in windows) + (images % BATCH > 0)
    assert np.array_equal(np.concatenate([order.batch(n) for n in range(order.batches)]), order.permutation)


NETS = {
    "plain": {},
    "dropout": {"make": lambda: make_mlp(dropout=0.3, batch_norm=True)},
    "sgd": {"optimizer": lambda: keras.optimizers.SGD(0.1, momentum=0.9)},
    "adadelta": {"optimizer": lambda: keras.optimizers.Adadelta(1.0)},
    "cosine": {"optimizer": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 15))},
}


@pytest.mark.parametrize("name", NETS)
def test_xla_epochs_give_exactly_the_weights_of_fit_under_xla(data, name):
    """Dropout and batch norm included: the random states advance as in fit.

    On a processor without AVX-512, XLA rounds the sums of this net otherwise in the two programs.
    """
    net = NETS[name]
    expected, _, in_fit = trained(data, "off", **net, jit_compile=True)
    model, _, heard = trained(data, "xla", **net)
    assert largest_difference(model, expected) <= (ROUNDING if name == "dropout" else 0.0)
    for ours, theirs in zip(heard.epochs, in_fit.epochs, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
        assert ours["accuracy"] == theirs["accuracy"]


def test_xla_epochs_stay_within_a_hundred_thousandth_of_plain_fit(data):
    expected, *_ = trained(data, "off")
    model, *_ = trained(data, "xla")
    assert largest_difference(model, expected) < 1e-5


@pytest.mark.parametrize(
    "augmentation", [{}, {"rotation": 0.1, "translation": 0.1, "zoom": 0.1}], ids=["cnn", "augmented"]
)
def test_windows_give_the_weights_of_plain_fit_for_convolutions_and_augmentation(data, augmentation):
    expected, *_ = trained(data, "off", lambda: make_cnn(**augmentation))
    model, *_ = trained(data, "windows", lambda: make_cnn(**augmentation))
    assert largest_difference(model, expected) < 1e-5


@pytest.mark.parametrize("mode", ["xla", "windows"])
def test_a_step_is_traced_once_for_the_full_batches_and_once_for_the_short_one(data, mode, none_kept):
    model, traces = make_mlp(dropout=0.3, batch_norm=True), []
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])
    plain = model.train_step
    model.train_step = lambda batch: traces.append(batch[1].shape[0]) or plain(batch)
    loop = ProgramLoop(model, data, data[:70], NAMES, settings(), 5, mode)
    loop.begin(0, 2, [])
    loop.fit()
    assert traces == [32, 22]


@pytest.mark.parametrize("mode", ["xla", "windows"])
def test_the_validation_is_what_keras_evaluates(data, mode):
    model, loop, heard = trained(data, mode, lambda: make_mlp(dropout=0.3, batch_norm=True))
    loss, accuracy = model.evaluate(data.images[:70], data.labels[:70], verbose=0)
    assert heard.epochs[-1]["val_loss"] == pytest.approx(loss, rel=1e-5)
    assert heard.epochs[-1]["val_accuracy"] == pytest.approx(accuracy)
    found = loop.evaluate()
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert np.abs(found.probabilities - model.predict(data.images[:70], verbose=0)).max() < ROUNDING
    assert np.abs(keras.ops.softmax(found.logits).numpy() - found.probabilities).max() < ROUNDING
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])  # as a callback may
    assert np.abs(loop.evaluate().probabilities - 0.1).max() < ROUNDING


SMOOTHED = {"loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.1)}
SIMILAR = {  # two trainings that one program serves
    "rate and dropout": (
        {"make": lambda: make_mlp(dropout=0.3)},
        {"make": lambda: make_mlp(dropout=0.41), "optimizer": lambda: keras.optimizers.Adam(0.0123)},
    ),
    "adam": (
        {"optimizer": lambda: keras.optimizers.Adam(0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7)},
        {"optimizer": lambda: keras.optimizers.Adam(0.03, beta_1=0.83, beta_2=0.97, epsilon=1e-3)},
    ),
    "adamw": (
        {"optimizer": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.01)},
        {"optimizer": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.3)},
    ),
    "nadam": (
        {"optimizer": lambda: keras.optimizers.Nadam(0.01, beta_1=0.9)},
        {"optimizer": lambda: keras.optimizers.Nadam(0.02, beta_1=0.7)},
    ),
    "sgd": (
        {"optimizer": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)},
        {"optimizer": lambda: keras.optimizers.SGD(0.1, momentum=0.37, nesterov=True)},
    ),
    "adadelta": (
        {"optimizer": lambda: keras.optimizers.Adadelta(1.0, rho=0.95)},
        {"optimizer": lambda: keras.optimizers.Adadelta(0.3, rho=0.8)},
    ),
    "rmsprop": (
        {"optimizer": lambda: keras.optimizers.RMSprop(0.01, rho=0.9, momentum=0.1)},
        {"optimizer": lambda: keras.optimizers.RMSprop(0.01, rho=0.77, momentum=0.6)},
    ),
    "cosine": (
        {"optimizer": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 15))},
        {"optimizer": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.03, 15))},
    ),
    "warm-up": (
        {"optimizer": lambda: keras.optimizers.Adam(warm_up(0.01, 10, 5))},
        {"optimizer": lambda: keras.optimizers.Adam(warm_up(0.03, 10, 5))},
    ),
    "clipped": (
        {"optimizer": lambda: keras.optimizers.Adam(0.01, clipnorm=1.0)},
        {"optimizer": lambda: keras.optimizers.Adam(0.01, clipnorm=0.1)},
    ),
    "smoothing": (
        {"loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.1)},
        {"loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.27)},
    ),
}


def warm_up(rate, steps, rising):
    return keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=rate, warmup_steps=rising)


@pytest.mark.parametrize("mode", ["xla", "windows"])
@pytest.mark.parametrize("nets", SIMILAR.values(), ids=SIMILAR)
def test_a_kept_program_gives_exactly_the_weights_of_one_of_its_own(data, nets, mode, none_kept):
    first, second = nets
    _, before, _ = trained(data, mode, **first)
    model, kept, heard = trained(data, mode, **second)
    assert kept.program is before.program
    programs._kept.clear()
    expected, other, own = trained(data, mode, **second)
    assert other.program is not before.program
    assert largest_difference(model, expected) == 0.0
    assert heard.epochs == own.epochs
    assert np.array_equal(kept.evaluate().probabilities, other.evaluate().probabilities)


OTHER = {  # two trainings that need two programs
    "no dropout": ({"make": lambda: make_mlp(dropout=0.3)}, {}),
    "width": ({}, {"make": lambda: make_mlp(widths=[17])}),
    "activation": ({}, {"make": lambda: make_mlp(activation="tanh")}),
    "optimizer": ({}, {"optimizer": lambda: keras.optimizers.Nadam(0.01)}),
    "momentum": (
        {"optimizer": lambda: keras.optimizers.RMSprop(0.01, momentum=0.0)},
        {"optimizer": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5)},
    ),
    "amsgrad": (
        {"optimizer": lambda: keras.optimizers.Adam(0.01)},
        {"optimizer": lambda: keras.optimizers.Adam(0.01, amsgrad=True)},
    ),
    "schedule": ({}, {"optimizer": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 15))}),
    "smoothing": ({"loss": keras.losses.CategoricalCrossentropy()}, SMOOTHED),
    "steps": (
        {"optimizer": lambda: keras.optimizers.Adam(warm_up(0.01, 10, 5))},
        {"optimizer": lambda: keras.optimizers.Adam(warm_up(0.01, 8, 5))},
    ),
}


@pytest.mark.parametrize("nets", OTHER.values(), ids=OTHER)
def test_what_a_program_does_not_fit_gets_one_of_its_own(data, nets, none_kept):
    first, second = nets
    _, before, _ = trained(data, "windows", **first)
    model, after, _ = trained(data, "windows", **second)
    assert after.program is not before.program
    expected, *_ = trained(data, "off", **second)
    assert largest_difference(model, expected) < 1e-5


class Doubled(keras.layers.Layer):
    factor = 2

    def call(self, inputs):
        return inputs * type(self).factor


def make_doubled():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(10, "softmax")(Doubled()(x)))


def test_a_program_with_layers_of_a_users_own_is_not_kept(data, none_kept, monkeypatch):
    """Their code may do what no config says."""
    _, before, _ = trained(data, "xla", make_doubled)
    monkeypatch.setattr(Doubled, "factor", 3)
    model, after, _ = trained(data, "xla", make_doubled)
    assert after.program is not before.program
    expected, *_ = trained(data, "off", make_doubled)
    assert largest_difference(model, expected) < 1e-5


def test_dense_nets_are_compiled_whole_and_convolutions_on_a_cpu_in_windows():
    on_cpu = not tf.config.list_physical_devices("GPU")
    assert choose_mode(make_mlp(), "auto") == "xla"
    assert choose_mode(make_cnn(), "auto") == ("windows" if on_cpu else "xla")
    assert choose_mode(make_cnn(), "on") == "xla"
    assert choose_mode(make_mlp(), "off") == "off"


def test_what_xla_cannot_compile_takes_windows_even_when_asked_for():
    rotating = make_mlp(augmentation=NO_AUGMENTATION | {"rotation": 0.1})
    assert choose_mode(rotating, "auto") == choose_mode(rotating, "on") == "windows"


def test_callbacks_hear_every_window_and_the_epoch(data, monkeypatch, none_kept):
    monkeypatch.setitem(programs.WINDOW, "windows", 3)
    _, _, heard = trained(data, "windows", make_cnn)
    own, checked = {"loss", "accuracy"}, {"val_loss", "val_accuracy"}
    assert heard.steps == [(0, own), (1, own | checked)] * EPOCHS  # three full batches, then one and the short one
    assert set(heard.epochs[-1]) == own | checked


def test_sample_weights_reach_loss_and_metrics(data):
    """As `fit` has them: a weight of zero takes an image out of the loss."""
    model, weights = make_mlp(), np.where(np.arange(IMAGES) % 3, 1.0, 0.0).astype(np.float32)
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(), weighted_metrics=["accuracy"]
    )
    order = BatchOrder(IMAGES, BATCH, seed=5)
    given = programs.Data.of((data.images, data.labels, weights), (data.images, data.labels, weights), 50)
    *_, ours = programs.get_program(model, given, order, "xla").train(order, given)
    values = model.evaluate(data.images, data.labels, sample_weight=weights, batch_size=50, verbose=0, return_dict=True)
    assert {f"val_{name}": value for name, value in values.items()} == pytest.approx(
        {name: value for name, value in ours.items() if name.startswith("val_")}, rel=1e-5
    )


def names(cache):
    return sorted(path.name for path in cache.folder.iterdir() if path.is_file())


def test_a_compiled_program_is_kept_on_disk_and_a_damaged_one_is_compiled_again(tmp_path):
    cache = ProgramCache(tmp_path)

    def compile_with(content):
        with cache.compiling("a program"):
            found = {path.name: path.read_bytes() for path in cache.private.iterdir()}
            if not found:
                (cache.private / "xla.pb").write_bytes(content)
        assert list(cache.private.iterdir()) == []
        return found

    content = json.dumps(list(range(1000))).encode()
    assert compile_with(content) == {}
    (entry,) = names(cache)
    assert compile_with(b"") == {"xla.pb": content}
    whole = (cache.folder / entry).read_bytes()
    middle = len(whole) // 2
    for damaged in (b"", whole[:middle], whole[:middle] + b"\0\0\0\0" + whole[middle + 4 :], b"no archive" * 100):
        (cache.folder / entry).write_bytes(damaged)
        assert compile_with(content) == {}
        assert compile_with(b"") == {"xla.pb": content}
