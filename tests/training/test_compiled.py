import keras
import numpy as np
import pytest
import tensorflow as tf

from mnist_exp import models
from mnist_exp.training.compiled import BatchOrder, choose_mode, prepare_fit

NO_AUGMENTATION = {"translation": 0.0, "rotation": 0.0, "zoom": 0.0}
IMAGES, BATCH, EPOCHS = 150, 32, 3  # a short last batch of 22


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
    return rng.integers(0, 256, (IMAGES, 8, 8, 1), dtype=np.uint8), rng.integers(0, 10, IMAGES)


def trained(data, mode, make, jit_compile="auto"):
    """Weights, optimizer state and history after a few epochs in this mode."""
    keras.utils.set_random_seed(1)
    model = make()
    model.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=jit_compile
    )
    batches, new_order = prepare_fit(model, *data, BatchOrder(IMAGES, BATCH, seed=5), mode)
    history = model.fit(batches, epochs=EPOCHS, shuffle=False, callbacks=[new_order], verbose=0).history
    return [variable.numpy() for variable in [*model.weights, *model.optimizer.variables]], history


def largest_difference(some, other):
    return max(float(np.abs(a.astype(float) - b.astype(float)).max()) for a, b in zip(some, other, strict=True))


def test_the_order_visits_every_image_once_an_epoch_and_is_a_function_of_seed_and_epoch():
    order = BatchOrder(IMAGES, BATCH, seed=5)
    first = order.permutation.copy()
    assert sorted(first) == list(range(IMAGES))
    order.begin(1)
    assert not np.array_equal(order.permutation, first)
    order.begin(0)
    assert np.array_equal(order.permutation, first)
    assert not np.array_equal(BatchOrder(IMAGES, BATCH, seed=6).permutation, first)


@pytest.mark.parametrize("size", [None, 1, 3, 100])
@pytest.mark.parametrize("images", [150, 160, 20])
def test_windows_hold_the_batches_in_order_the_short_last_one_included(images, size):
    order = BatchOrder(images, BATCH, seed=0)
    windows = [order.window(*ends) for ends in order.windows(size)]
    batches = [batch for window in windows for batch in window]
    assert len(batches) == order.batches
    assert {len(batch) for batch in batches[:-1]} <= {BATCH}
    assert np.array_equal(np.concatenate(batches), order.permutation)


@pytest.mark.parametrize("make", [make_mlp, lambda: make_mlp(dropout=0.3, batch_norm=True)], ids=["plain", "dropout"])
def test_xla_epochs_give_exactly_the_weights_of_fit_under_xla(data, make):
    """Dropout and batch norm included: the random states advance as in fit."""
    expected, history = trained(data, "off", make, jit_compile=True)
    weights, ours = trained(data, "xla", make)
    assert largest_difference(weights, expected) == 0.0
    assert ours["accuracy"] == history["accuracy"]
    assert ours["loss"] == pytest.approx(history["loss"], rel=1e-6)


def test_xla_epochs_stay_within_a_hundred_thousandth_of_plain_fit(data):
    expected, _ = trained(data, "off", make_mlp, jit_compile=False)
    weights, _ = trained(data, "xla", make_mlp)
    assert largest_difference(weights, expected) < 1e-5


@pytest.mark.parametrize(
    "augmentation", [{}, {"rotation": 0.1, "translation": 0.1, "zoom": 0.1}], ids=["cnn", "augmented"]
)
def test_windows_give_the_weights_of_plain_fit_for_convolutions_and_augmentation(data, augmentation):
    expected, _ = trained(data, "off", lambda: make_cnn(**augmentation), jit_compile=False)
    weights, _ = trained(data, "windows", lambda: make_cnn(**augmentation))
    assert largest_difference(weights, expected) < 1e-5


@pytest.mark.parametrize("mode", ["xla", "windows"])
def test_a_step_is_traced_once(data, mode):
    model, traces = make_mlp(dropout=0.3, batch_norm=True), []
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    plain = model.train_step
    model.train_step = lambda batch: traces.append(batch) or plain(batch)
    images, labels = (part[:128] for part in data)
    batches, new_order = prepare_fit(model, images, labels, BatchOrder(128, BATCH, seed=5), mode)
    model.fit(batches, epochs=2, shuffle=False, callbacks=[new_order], verbose=0)
    assert len(traces) == 1


def test_dense_nets_are_compiled_whole_and_convolutions_on_a_cpu_in_windows():
    on_cpu = not tf.config.list_physical_devices("GPU")
    assert choose_mode(make_mlp(), "auto") == "xla"
    assert choose_mode(make_cnn(), "auto") == ("windows" if on_cpu else "xla")
    assert choose_mode(make_cnn(), "on") == "xla"
    assert choose_mode(make_mlp(), "off") == "off"


def test_what_xla_cannot_compile_takes_windows_even_when_asked_for():
    rotating = make_mlp(augmentation=NO_AUGMENTATION | {"rotation": 0.1})
    assert choose_mode(rotating, "auto") == choose_mode(rotating, "on") == "windows"


def test_callbacks_hear_every_window_and_the_epoch(data):
    heard = []

    class Listening(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            heard.append(("step", batch, set(logs)))

        def on_epoch_end(self, epoch, logs=None):
            heard.append(("epoch", epoch, set(logs)))

    model = make_cnn()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    batches, new_order = prepare_fit(model, *data, BatchOrder(IMAGES, BATCH, seed=5), "windows")
    model.fit(batches, shuffle=False, verbose=0, validation_data=data, callbacks=[new_order, Listening()])
    assert [kind for kind, *_ in heard] == ["step", "step", "epoch"]  # four full batches, then the short one
    assert heard[-1][2] == {"loss", "accuracy", "val_loss", "val_accuracy"}
