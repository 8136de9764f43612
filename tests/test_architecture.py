from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from mnist_exp import models
from mnist_exp.evaluation.architecture import architecture, boxes

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

    inner = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(4, 3), layers.GlobalMaxPooling2D()], name="backbone")
    return keras.Sequential([keras.Input(SHAPE), inner, layers.Dense(10)])


def wide() -> "keras.Model":
    """Three branches of different length, joined."""
    import keras
    from keras import layers

    inputs = keras.Input(SHAPE)
    long = layers.Conv2D(4, 3, padding="same")(layers.Conv2D(4, 1)(layers.Conv2D(4, 1)(inputs)))
    short = layers.Conv2D(4, 1)(inputs)
    pooled = layers.Conv2D(4, 1)(layers.MaxPooling2D(3, strides=1, padding="same")(inputs))
    return keras.Model(inputs, layers.Concatenate()([long, short, pooled, inputs]))


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def titles(model: "keras.Model") -> list[str]:
    return [box.title for box in boxes(model)]


def test_small_layers_share_the_box_of_the_layer_before() -> None:
    pixels, flat, hidden, output = boxes(mlp())
    assert (pixels.title, pixels.details, pixels.shape) == ("Input", "rescaled", "28x28x1")
    assert (flat.title, flat.shape, flat.parameters) == ("Flatten", "784", 0)
    assert (hidden.title, hidden.details, hidden.shape) == ("Dense", "batch norm, relu, dropout 0.2", "32")
    assert (output.title, output.details, output.parameters) == ("Dense", "softmax", 330)


def test_augmentation_is_one_box() -> None:
    assert titles(cnn()) == [
        "Input", "Augmentation, in training", "Conv2D 3x3", "MaxPooling2D 2x2", "Conv2D 3x3", "MaxPooling2D 2x2",
        "Flatten", "Dense", "Dense",
    ]  # fmt: skip
    assert boxes(cnn())[1].details == "translation, rotation, zoom"


@pytest.mark.parametrize("build", [mlp, cnn, resnet, shared, nested, wide])
def test_no_parameter_is_lost_or_counted_twice(build: Any) -> None:
    model = build()
    total = sum(box.parameters for box in boxes(model))
    assert total == model.count_params()
    assert any(word.startswith(f"{total:,} parameters") for word in words(architecture(model)))


def test_weights_that_are_not_trained_are_named() -> None:
    assert any(word.endswith(", 64 of them not trained") for word in words(architecture(mlp())))


def test_a_residual_block_branches_and_joins() -> None:
    found = boxes(resnet())
    joins = [box for box in found if box.title == "Add"]
    assert [len(box.parents) for box in joins] == [2] * 4
    strided, plain = joins[:2]
    assert {found[parent].title for parent in strided.parents} == {"Conv2D 1x1, stride 2", "Conv2D 3x3"}
    assert found.index(strided) in plain.parents  # past two convolutions
    assert joins[0].details == "relu"


@pytest.mark.parametrize("build", [mlp, cnn, resnet, shared, nested, wide])
def test_the_picture_has_every_box_every_arrow_and_nothing_over_another(build: Any) -> None:
    model = build()
    found = boxes(model)
    figure = architecture(model)
    drawn = [patch.get_window_extent() for patch in figure.axes[0].patches]
    heads = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
    assert len(drawn) == len(found)
    assert len(heads) == sum(len(box.parents) for box in found)
    assert not any(a.overlaps(b) for a, b in combinations(drawn, 2))
    assert not [text for text in _texts(figure) if not _fits(text, figure, drawn)]


@pytest.mark.parametrize("build", [resnet, shared, wide])
def test_no_arrow_crosses_a_box(build: Any) -> None:
    figure = architecture(build())
    axes = figure.axes[0]
    drawn = [patch.get_window_extent() for patch in axes.patches]
    for line in axes.lines:
        corners = axes.transData.transform(np.column_stack([line.get_xdata(), line.get_ydata()]))
        for start, end in pairwise(corners):
            on_the_way = start + np.linspace(0.02, 0.98, 200)[:, None] * (end - start)
            assert not any(box.contains(*point) for box in drawn for point in on_the_way)


def test_a_layer_used_twice_is_drawn_twice() -> None:
    assert [box.details for box in boxes(shared()) if box.shape == "5"].count("the same weights again") == 1


def test_a_net_within_the_net_is_one_box() -> None:
    assert titles(nested()) == ["Input", "backbone", "Dense"]


def test_a_subclassed_model_is_drawn_without_arrows() -> None:
    import keras

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, pixels: Any) -> Any:
            return self.dense(pixels)

    model = Net()
    assert any("not built yet" in word for word in words(architecture(model)))
    model(np.zeros((1, 4)))
    figure = architecture(model)
    assert not figure.axes[0].lines
    assert "15 parameters\nhow the layers are connected is not known" in words(figure)


def _texts(figure: Figure) -> list[Text]:
    FigureCanvasAgg(figure).draw()
    return [text for text in figure.axes[0].texts if text.get_text()]


def _fits(text: Text, figure: Figure, drawn: list[Any]) -> bool:
    """Within the picture, and wholly in a box or wholly outside of all."""
    extent = text.get_window_extent()
    touched = [box for box in drawn if box.overlaps(extent)]
    inside = all(box.x0 <= extent.x0 and extent.x1 <= box.x1 for box in touched) and len(touched) <= 1
    return inside and extent.x0 >= 0 and extent.x1 <= figure.bbox.x1 and extent.y0 >= 0 and extent.y1 <= figure.bbox.y1
