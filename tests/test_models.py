import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from mnist_exp.config.check import check
from mnist_exp.config.compose import CONF, compose
from mnist_exp.errors import ConfigError
from mnist_exp.models import Activation

SHAPES = [(28, 28, 1), (32, 32, 3), (8, 8, 1)]
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if path.stem not in ("custom", "pretrained"))
PARAMETERS = {"dense_128_64": 109_386, "dense_128_128": 118_282, "dense_100": 79_510, "cnn_adadelta": 2_380_938}


def model(*overrides: str, shape: tuple[int, int, int] = (28, 28, 1), classes: int = 10) -> Any:
    return check(compose(overrides)).build("model", image_shape=shape, classes=classes)


def pixels(shape: tuple[int, int, int], count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def ask(net: Any, images: np.ndarray, training: bool = False) -> np.ndarray:
    import keras

    return keras.ops.convert_to_numpy(net(images, training=training))


def layers(net: Any) -> list[str]:
    return [type(layer).__name__ for layer in net.layers]


def test_importing_it_loads_neither_keras_nor_tensorflow() -> None:
    code = "import sys, mnist_exp.models, mnist_exp.optimizers; print({'keras', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_those_of_the_published_recipes(name: str) -> None:
    assert model(f"experiment={name}").count_params() == PARAMETERS[name]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_raw_pixels_give_probabilities_before_and_after_saving(
    name: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    import keras

    blocks = ["model.blocks=[[4]]"] if name == "cnn" else []
    net = model(f"model={name}", *blocks, shape=shape, classes=3)
    images = pixels(shape)
    answers = ask(net, images)
    assert answers.shape == (4, 3)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)
    assert len(np.unique(answers, axis=0)) == 4  # each image its own answer
    net.save(tmp_path / "net.keras")
    again = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(ask(again, images), answers)
    np.testing.assert_allclose(again.predict(images, verbose=0), answers, atol=1e-6)


def test_pixels_are_rescaled_inside() -> None:
    import keras

    net = model("model.widths=[]")
    inner = keras.Model(net.input, net.layers[1].output)
    np.testing.assert_allclose(ask(inner, np.full((1, 28, 28, 1), 255, np.uint8)), 1.0, atol=1e-6)


def test_no_widths_make_a_logistic_regression() -> None:
    assert model("model.widths=[]").count_params() == 28 * 28 * 10 + 10
    assert model("model=cnn", "model.blocks=[]", "model.dense=[]").count_params() == 28 * 28 * 10 + 10


@pytest.mark.parametrize("activation", get_args(Activation))
def test_every_activation_builds(activation: str) -> None:
    answers = ask(model(f"model.activation={activation}", "model.widths=[4]"), pixels((28, 28, 1)))
    assert np.isfinite(answers).all()


@pytest.mark.parametrize(
    ("overrides", "layer", "count"),
    [
        (["model=mlp", "model.widths=[8,4]", "model.dropout=0.5"], "Dropout", 2),
        (["model=mlp", "model.widths=[8,4]", "model.batch_norm=true"], "BatchNormalization", 2),
        (["model=cnn", "model.blocks=[[4,4],[8]]", "model.block_dropout=0.5"], "Dropout", 2),
        (["model=cnn", "model.dense=[8,4]", "model.dense_dropout=0.5"], "Dropout", 2),
        (["model=cnn", "model.blocks=[[4,4],[8]]", "model.batch_norm=true", "model.dense=[]"], "BatchNormalization", 3),
        (["model=cnn", "model.blocks=[[4,4],[8]]"], "MaxPooling2D", 2),
        (["model=cnn", "model.blocks=[[4,4],[8]]"], "Conv2D", 3),
        (["model=resnet", "model.dropout=0.5"], "Dropout", 1),
        (["model=resnet", "model.dropout=0.0"], "Dropout", 0),
        (["model=resnet", "model.stages=[4,8]", "model.depth=3"], "Add", 6),
        (["model=mlp", "+model.augmentation={zoom: 0.1}"], "RandomZoom", 1),
        (["model=mlp"], "RandomZoom", 0),
    ],
)
def test_keys_have_their_layers(overrides: list[str], layer: str, count: int) -> None:
    assert layers(model(*overrides)).count(layer) == count


def test_kernel_padding_and_pooling_set_the_size() -> None:
    def side(*overrides: str) -> int:
        net = model("model=cnn", "model.blocks=[[4]]", *overrides)
        return next(layer.output.shape[1] for layer in net.layers if type(layer).__name__ == "MaxPooling2D")

    assert side() == 13
    assert side("model.padding=same") == 14
    assert side("model.kernel=5") == 12
    assert side("model.pooling=3") == 8


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["translation", "rotation", "zoom"])
def test_augmentation_of_an_earlier_version_acts_in_training_only(name: str, kind: str) -> None:
    import keras

    net = model(f"model={name}", f"+model.augmentation={{{kind}: 0.2}}")
    seen = keras.Model(net.input, net.layers[2].output)
    images = pixels((28, 28, 1))
    np.testing.assert_allclose(ask(seen, images), images / np.float32(255), atol=1e-6)
    assert np.abs(ask(seen, images, training=True) - images / 255).max() > 0.1


@pytest.mark.parametrize("overrides", [["model.dropout=0.5"], ["model.batch_norm=true"]], ids=str)
def test_dropout_and_batch_norm_act_in_training_only(overrides: list[str]) -> None:
    net = model(*overrides)
    images = pixels((28, 28, 1), 32)
    answers = ask(net, images)
    assert np.abs(ask(net, images, training=True) - answers).max() > 0.01


def test_the_seed_decides_the_weights() -> None:
    import keras

    def weights(seed: int) -> np.ndarray:
        keras.utils.set_random_seed(seed)
        return model("model.widths=[4]").get_weights()[0]

    np.testing.assert_array_equal(weights(1), weights(1))
    assert np.abs(weights(1) - weights(2)).max() > 0


@pytest.mark.parametrize(
    ("overrides", "shape", "said"),
    [
        (["model=cnn", "model.blocks=[[4],[4],[4],[4]]"], (28, 28, 1), ["block 4 leaves", "28 -> 13 -> 5 -> 1 -> 0"]),
        (["model=cnn", "model.blocks=[[4,4,4,4]]"], (8, 8, 1), ["block 1 leaves", "8 -> 0", "model.padding=same"]),
        (["model=cnn", "model.blocks=[[4],[4]]"], (40, 5, 3), ["block 2 leaves", "5 -> 1 -> 0"]),
        (["model=cnn", "model.kernel=9", "model.blocks=[[4,4]]"], (8, 8, 1), ["block 1 leaves", "8 -> 0"]),
        (
            ["model=resnet", "model.stages=[4,4,4,4]"],
            (8, 8, 1),
            ["at most 3 stages for 8x8 pixels", "[4, 4, 4, 4]"],
        ),
    ],
)
def test_a_net_too_deep_for_the_image_names_the_block(
    overrides: list[str], shape: tuple[int, int, int], said: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        model(*overrides, shape=shape)
    assert all(words in str(refused.value) for words in said), refused.value


def test_padding_is_no_remedy_where_it_is_chosen_already() -> None:
    with pytest.raises(ConfigError) as refused:
        model("model=cnn", "model.padding=same", "model.blocks=[[4],[4],[4],[4]]", shape=(8, 8, 1))
    assert "use fewer blocks or a smaller model.pooling" in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "shape"),
    [
        (["model=cnn", "model.padding=same", "model.blocks=[[4],[4],[4]]"], (8, 8, 1)),
        (["model=cnn", "model.blocks=[[4],[4],[4]]"], (28, 28, 1)),
        (["model=resnet", "model.stages=[4,4,4]"], (8, 8, 1)),
    ],
)
def test_a_net_as_deep_as_the_image_allows_builds(overrides: list[str], shape: tuple[int, int, int]) -> None:
    answers = ask(model(*overrides, shape=shape), pixels(shape))
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)
