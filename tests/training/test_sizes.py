import keras
import pytest
from keras import layers

from mnist_exp.models import mlp
from mnist_exp.training.sizes import sizes_of


def test_the_sizes_of_a_small_net_are_those_of_a_calculation():
    inputs = keras.Input((4, 4, 1), dtype="uint8")
    hidden = layers.Dense(10)(layers.Flatten(dtype="float32")(inputs))
    net = keras.Model(inputs, layers.Dense(3, "softmax")(hidden))
    sizes = sizes_of(net, batch_size=8)
    assert sizes["parameters"] == 16 * 10 + 10 + 10 * 3 + 3 == net.count_params()
    assert sizes["size"] == pytest.approx(4 * 203 / 1e6)
    answers = 16 + 16 + 4 * (10 + 3)  # bytes of an image: the input and its flat form as uint8, then float32
    assert sizes["memory"] == pytest.approx((4 * 4 * 203 + 2 * 8 * answers) / 1e6)


def test_a_larger_batch_needs_more_memory_and_no_larger_file():
    net = mlp((28, 28, 1), 10, widths=[64], activation="relu", dropout=0.0, batch_norm=False)
    small, large = sizes_of(net, 32), sizes_of(net, 64)
    assert small["size"] == large["size"]
    assert small["memory"] < large["memory"]
