"""What a net of the user's own must be, checked before its first epoch."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from own_layers import OWN

from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.errors import ConfigError
from mnist_exp.training import contract
from mnist_exp.training.contract import check_answers, check_model

SHAPE, CLASSES = (6, 6, 1), 4
IMAGES = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), dtype=np.uint8)
layers = keras.layers


class Scale(layers.Layer):
    """A layer with an argument that Keras cannot write, and no get_config."""

    def __init__(self, given: SimpleNamespace, **keys: Any) -> None:
        super().__init__(**keys)
        self.given = given

    def call(self, x: Any) -> Any:
        return x * self.given.factor


class Forgetful(layers.Layer):
    """A layer with a weight that Keras does not know, and so does not save."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.factor = random.random()

    def call(self, x: Any) -> Any:
        return x * self.factor


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.flat, self.dense = layers.Flatten(), layers.Dense(CLASSES, "softmax")

    def call(self, x: Any) -> Any:
        return self.dense(self.flat(x))


def net(
    units: int = CLASSES,
    activation: Any = "softmax",
    shape: tuple[int | None, ...] = SHAPE,
    middle: Callable[[Any], Any] = lambda x: x,
) -> keras.Model:
    inputs = keras.Input(shape)
    x = middle(layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, layers.Dense(units, activation)(layers.GlobalAveragePooling2D()(x)))


def two_outputs() -> keras.Model:
    one = net()
    return keras.Model(one.inputs, [one.outputs[0], one.outputs[0] * 1.0])


def two_inputs() -> keras.Model:
    one, other = keras.Input(SHAPE), keras.Input(SHAPE)
    return keras.Model([one, other], net()(one + other))


def built() -> keras.Model:
    model = Subclassed()
    model(IMAGES[:1])
    return model


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "none": (lambda: None, "must be a keras.Model, but its function returned None; end the function with"),
    "array": (lambda: IMAGES, "must be a keras.Model, but its function returned ndarray; end the function"),
    "unbuilt": (
        lambda: keras.Sequential([layers.Flatten(), layers.Dense(CLASSES, "softmax")]),
        "must be built, but the Sequential that its function returned does not know its input; begin it with",
    ),
    "unbuilt subclass": (Subclassed, "must be built, but the Subclassed that its function returned does not know its"),
    "subclass": (built, "must be a functional or sequential model, but is a Subclassed; wrap it: inputs ="),
    "two outputs": (two_outputs, "must have one output, but got 2; end with keras.layers.Dense(classes, "),
    "two inputs": (two_inputs, "must have one input, but got 2; give keras.Input(image_shape)"),
    "shape": (
        lambda: net(shape=(28, 28, 1)),
        "must have an input of shape (None, 6, 6, 1), but got (None, 28, 28, 1); give keras.Input(image_shape)",
    ),
    "classes": (lambda: net(3), "must have an output of shape (None, 4), but got (None, 3); end with keras"),
    "logits": (
        lambda: net(activation=None),
        "must answer with probabilities: not negative, with a sum of 1 for each image, but an image got numbers from ",
    ),
    "sigmoid": (lambda: net(activation="sigmoid"), "must answer with probabilities: not negative, with a sum of 1"),
    "log softmax": (lambda: net(activation="log_softmax"), "must answer with probabilities: not negative"),
    "nan": (
        lambda: net(middle=lambda x: keras.ops.log(x - 2.0)),
        "must answer with finite numbers before its training, but got nan; look for a division by zero",
    ),
    "lambda": (
        lambda: net(middle=layers.Lambda(lambda x: x * 2, name="double")),
        "must not have a Lambda layer with a lambda (double), because Keras does not load it again; use functions of",
    ),
    "no get_config": (
        lambda: net(middle=Scale(SimpleNamespace(factor=2.0))),
        "must be a net that Keras can save and load, but to ",
    ),
    "unsaved state": (
        lambda: net(middle=Forgetful()),
        "must answer the same when it is loaded in its file, probabilities within 0.001, but got ",
    ),
}


@pytest.mark.parametrize(("make", "said"), WRONG.values(), ids=WRONG)
def test_each_breach_has_a_sentence_of_its_own(make: Callable[[], Any], said: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    with pytest.raises(ConfigError) as refused:
        check_model(make(), IMAGES, CLASSES, tmp_path)
    (problem,) = refused.value.problems
    assert problem.key == "model"
    assert str(refused.value).startswith(f"model {said}")
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_users_layer_arrives_as_it_was_raised(tmp_path: Path) -> None:
    class Broken(layers.Layer):
        def call(self, x: Any) -> Any:
            if isinstance(x, keras.KerasTensor):
                return x
            return {}["no such key"]

    with pytest.raises(KeyError, match="no such key"):
        check_model(net(middle=Broken()), IMAGES, CLASSES, tmp_path)


@pytest.mark.parametrize("shape", [SHAPE, (None, None, 1)], ids=str)
def test_a_net_as_it_should_be(shape: tuple[int | None, ...], tmp_path: Path) -> None:
    check_model(net(shape=shape, middle=lambda x: keras.ops.relu(x) * 2.0 + 1.0), IMAGES, CLASSES, tmp_path)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_softmax_that_rounds_is_one(policy: str, tmp_path: Path) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        check_model(net(), IMAGES, CLASSES, tmp_path)
    finally:
        keras.config.set_dtype_policy(before)


def test_probabilities_that_lie_by_more_than_rounding_are_refused() -> None:
    check_answers(np.array([[0.5, 0.504], [1.0, 0.0]]))
    for wrong in ([[0.5, 0.52]], [[1.1, -0.1]], [[0.0, 0.0]]):
        with pytest.raises(ConfigError, match="sum of 1"):
            check_answers(np.array(wrong))


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet"])
def test_the_check_changes_no_weight_and_no_random_number(model: str, tmp_path: Path) -> None:
    config = check(compose([f"model={model}", "+model.augmentation={rotation: 0.1}"]))
    images = np.zeros((8, 28, 28, 1), np.uint8)

    def trace(checked: bool) -> list[Any]:
        keras.utils.set_random_seed(3)
        built = config.build("model", image_shape=(28, 28, 1), classes=10)
        if checked:
            check_model(built, images, 10, tmp_path)
        return [*built.get_weights(), random.random(), np.random.random(), keras.random.uniform((3,)).numpy()]

    for before, after in zip(trace(False), trace(True), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_net_of_own_layers_is_loaded_in_a_new_process_once_for_the_same_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_layers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(contract, "_loaded", set())
    commands: list[Any] = []
    works = contract.subprocess.run
    monkeypatch.setattr(
        contract.subprocess, "run", lambda command, **keys: commands.append(command) or works(command, **keys)
    )
    import my_own_layers

    for factor in (2.0, 3.0):
        check_model(my_own_layers.net(SHAPE, CLASSES, factor=factor), IMAGES, CLASSES, tmp_path)
    assert len(commands) == 1
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"my_own_layers.py"}


def test_what_a_new_process_cannot_import_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "my_far_layers.py").write_text(OWN)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    import my_far_layers

    failed = SimpleNamespace(returncode=1, stderr="noise\nthe model needs Gain\n")
    monkeypatch.setattr(contract.subprocess, "run", lambda *args, **keys: failed)
    said = "so that predict and demo can use it, but there: the model needs Gain; define its layers in a module below"
    with pytest.raises(ConfigError, match=re.escape(said)):
        check_model(my_far_layers.net(SHAPE, CLASSES), IMAGES, CLASSES, tmp_path)
