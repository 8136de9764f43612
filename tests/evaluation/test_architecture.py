from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mnist_exp import models
from mnist_exp.evaluation.architecture import architecture
from mnist_exp.evaluation.network import Network, list_boxes

if TYPE_CHECKING:
    import keras

SHAPE = (28, 28, 1)
PLAIN: Any = {"translation": 0.0, "rotation": 0.0, "zoom": 0.0}
AUGMENTED: Any = {"translation": 0.1, "rotation": 0.03, "zoom": 0.1}


def mlp() -> "keras.Model":
    return models.mlp(SHAPE, 10, widths=[32], activation="relu", dropout=0.2, batch_norm=True, augmentation=PLAIN)


def cnn() -> "keras.Model":
    return models.cnn(
        SHAPE, 10, blocks=[[8], [16]], kernel=3, padding="valid", pooling=2, block_dropout=0.0, dense=[32],
        dense_dropout=0.5, activation="relu", batch_norm=False, augmentation=AUGMENTED,
    )  # fmt: skip


def resnet() -> "keras.Model":
    return models.resnet(SHAPE, 10, stem=4, stages=[4, 8], depth=2, dropout=0.3, augmentation=AUGMENTED)


def shared() -> "keras.Model":
    """A dense layer used twice, and arithmetic that is no layer."""
    import keras
    from keras import layers

    inputs = keras.Input(SHAPE)
    flat, dense = layers.Flatten()(inputs), layers.Dense(5)
    return keras.Model(inputs, layers.Dense(2)(dense(flat) + dense(flat * 2)))


def nested() -> "keras.Model":
    import keras
    from keras import layers

    inner = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(4, 3), layers.GlobalMaxPooling2D()])
    return keras.Sequential([keras.Input(SHAPE), inner, layers.Dense(10)])


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def test_small_layers_share_the_box_of_the_layer_before() -> None:
    pixels, flat, hidden, output = list_boxes(mlp())
    assert (pixels.title, pixels.details, pixels.shape) == ("InputLayer", ["Rescaling"], "28x28x1")
    assert (flat.title, flat.shape, flat.parameters) == ("Flatten", "784", 0)
    assert (hidden.title, hidden.details, hidden.shape) == ("Dense", ["BatchNormalization", "relu", "Dropout"], "32")
    assert (output.title, output.details, output.parameters) == ("Dense", ["softmax"], 330)


@pytest.mark.parametrize("build", [mlp, cnn, resnet, shared, nested])
def test_no_parameter_is_lost_or_counted_twice(build: Any) -> None:
    model = build()
    assert sum(box.parameters for box in list_boxes(model)) == model.count_params()
    assert f"{model.count_params():,} parameters" in words(architecture(Network.of(model)))


def test_a_residual_block_branches_and_joins() -> None:
    boxes = list_boxes(resnet())
    joins = [box for box in boxes if box.title == "Add"]
    assert [len(box.parents) for box in joins] == [2] * 4
    assert {tuple(boxes[parent - 1].details) for parent in joins[0].parents} == {
        ("1x1", "BatchNormalization"), ("3x3", "BatchNormalization"),
    }  # fmt: skip
    assert boxes.index(joins[0]) + 1 in joins[1].parents  # past two convolutions
    first, second = joins[0].parents
    assert f"from {first} and {second}, relu" in words(architecture(Network.of(resnet())))


@pytest.mark.parametrize("build", [mlp, cnn, resnet, shared, nested])
def test_every_text_lies_within_its_box(build: Any) -> None:
    figure = architecture(Network.of(build()))
    FigureCanvasAgg(figure).draw()
    boxes = [patch.get_window_extent() for patch in figure.axes[0].patches]
    texts = [text.get_window_extent() for text in figure.axes[0].texts[2:] if text.get_text()]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert not any(a.overlaps(b) for a, b in combinations(texts, 2))
    for text in texts:
        assert any(box.x0 < text.x0 and text.x1 < box.x1 and box.y0 < text.y0 and text.y1 < box.y1 for box in boxes)


def test_a_subclassed_model_is_drawn_without_connections() -> None:
    import keras

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, pixels: Any) -> Any:
            return self.dense(pixels)

    model = Net()
    assert any("not built yet" in word for word in words(architecture(Network.of(model))))
    model(np.zeros((1, 4)))
    figure = architecture(Network.of(model))
    assert not figure.axes[0].lines
    assert "15 parameters; connections of the layers unknown" in words(figure)
