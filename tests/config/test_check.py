import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mnist_exp.config.check import check, check_values
from mnist_exp.config.compose import compose
from mnist_exp.config.run_config import plain
from mnist_exp.config.schema import Training
from mnist_exp.errors import ConfigError

NET = '''
"""A net of the user's own, with annotations that only a type checker can look up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Len

if TYPE_CHECKING:
    import keras
    from somewhere import Shape

GREETING = "hello"


def net(
    image_shape: Shape,
    classes: int,
    *,
    width: Annotated[int, Ge(1)],
    kind: Literal["a", "b"] = "a",
    shapes: list[Shape] | None = None,
) -> keras.Model:
    raise RuntimeError("a check builds nothing")


def anything(image_shape, classes, **keys): ...


def untyped(image_shape, classes, width, depth=2): ...


def layered(image_shape, classes, *, widths: Annotated[list[int], Len(1, 2)]): ...


class Net:
    def __init__(self, image_shape, classes, width: int): ...
'''


def problems(*overrides: str) -> list[str]:
    """The lines of the refusal."""
    with pytest.raises(ConfigError) as refused:
        check(compose(overrides))
    return str(refused.value).splitlines()


@pytest.fixture
def my_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of the user's own that can be imported."""
    (tmp_path / "net_of_my_own.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    return "net_of_my_own"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epochs=ten", "training.epochs must be an integer, but got 'ten'"),
        ("training.epochs=0", "training.epochs must be at least 1, but got 0"),
        ("training.epochs=2.5", "training.epochs must be an integer, but got 2.5"),
        ("training.epochs=null", "training.epochs must be an integer, but got null"),
        ("training.epochs=true", "training.epochs must be an integer, but got True"),
        ("training.batch_size=", "training.batch_size must be an integer, but got ''"),
        (
            "training.loss=mse",
            "training.loss must be sparse_categorical_crossentropy, categorical_crossentropy or {_target_: NAME,",
        ),
        ("training.weights=first", "training.weights must be 'last' or 'best', but got 'first'"),
        ("training.checkpoint_monitor=f1", "training.checkpoint_monitor must be 'val_accuracy', 'val_loss', "),
        ("training.reduce_lr_factor=1", "training.reduce_lr_factor must be less than 1, but got 1"),
        ("training.deterministic=yes", "training.deterministic must be true or false, but got 'yes'"),
        ("training.compiled_epoch=fast", "training.compiled_epoch must be 'auto', 'on' or 'off', but got 'fast'"),
        ("model.dropout=1.5", "model.dropout must be less than 1, but got 1.5"),
        ("model.dropout=-0.1", "model.dropout must be at least 0, but got -0.1"),
        ("model.dropout=null", "model.dropout must be a number, but got null"),
        ("model.widths=5", "model.widths must be a list, but got 5"),
        ("model.widths=[8,wide]", "model.widths[1] must be an integer, but got 'wide'"),
        ("model.widths=[0]", "model.widths[0] must be at least 1, but got 0"),
        ("model.activation=rely", "model.activation must be 'relu', 'elu', "),
        ("+model.augmentation.rotation=2", "model.augmentation.rotation must be less than 1, but got 2"),
        ("+model.augmentation.rotate=0.1", "model.augmentation.rotate must be 'translation', 'rotation' or 'zoom'"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate must be a number, but got 'fast'"),
        ("optimizer.learning_rate=0", "optimizer.learning_rate must be greater than 0, but got 0"),
        ("optimizer.learning_rate=inf", "optimizer.learning_rate must be a finite number, but got inf"),
        ("optimizer.beta_1=1.1", "optimizer.beta_1 must be at most 1, but got 1.1"),
        ("optimizer.schedule=linear", "optimizer.schedule must be constant, cosine or {_target_: NAME, key: value}, "),
        ("dataset.validation=1.5", "dataset.validation must be a fraction below 1 or a count, but got 1.5"),
        ("dataset.validation=0", "dataset.validation must be a fraction below 1 or a count, but got 0"),
        ("dataset.method=random", "dataset.method must be 'tail' or 'stratified', but got 'random'"),
        ("dataset.limit=-1", "dataset.limit must be at least 1, but got -1"),
        ("seed=-1", "seed must be at least 0, but got -1"),
        ("seed=3000000000", "seed must be less than 2147483648, but got 3000000000"),
        ("seed=null", "seed must be an integer, but got null"),
        ("name=''", "name must have at least 1 character, but got ''"),
        ("export=model.onnx", "export must be a file name that ends in .h5, without a folder, but got 'model.onnx'"),
        ("export=there/mnist.h5", "export must be a file name that ends in .h5, without a folder, but got"),
        ("tracking.enabled=maybe", "tracking.enabled must be true or false, but got 'maybe'"),
        ("tracking.folder=null", "tracking.folder must be a string, but got null"),
        ("+training.epoch=3", "training.epoch does not exist; did you mean training.epochs?"),
        ("+foo=1", "foo does not exist; the top level has seed, name, export, augmentation"),
        ("~training.epochs", "training.epochs is missing; give +training.epochs=..."),
        ("~model", "model must hold keys, but got null; choose with model=NAME"),
        ("seed=${nowhere}", "seed cannot be resolved; Interpolation key 'nowhere' not found"),
    ],
)
def test_a_bad_value_is_refused_with_key_rule_and_value(override: str, said: str) -> None:
    (line,) = problems(override)
    assert said in line


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=cnn", "model.blocks=[32]"], "model.blocks[0] must be a list, but got 32"),
        (["model=cnn", "model.blocks=[[32,x]]"], "model.blocks[0][1] must be an integer, but got 'x'"),
        (["model=cnn", "model.padding=full"], "model.padding must be 'valid' or 'same', but got 'full'"),
        (["model=resnet", "model.depth=0"], "model.depth must be at least 1, but got 0"),
        (["optimizer=sgd", "optimizer.nesterov=1"], "optimizer.nesterov must be true or false, but got 1"),
        (["dataset=npz"], "dataset.path is missing; give dataset.path=..."),
        (["model=custom"], "model._target_ is missing; give model._target_=..."),
        (
            ["training.label_smoothing=0.1"],
            "training.label_smoothing must be 0 with training.loss=sparse_categorical_",
        ),
        (
            ["training.reduce_lr_patience=2", "optimizer.schedule=cosine"],
            "training.reduce_lr_patience must be null with optimizer.schedule=cosine, which sets the rate itself",
        ),
        (
            ["training.reduce_lr_patience=2", "optimizer.warmup=0.1"],
            "training.reduce_lr_patience must be null with a schedule, which sets the rate itself, but got 2",
        ),
        (
            ["training.weights=best", "optimizer.use_ema=true"],
            "training.weights must be last with optimizer.use_ema, which averages the weights of the whole training",
        ),
        (
            ["training.label_smoothing=0.1", "training.loss={_target_:keras.losses.CategoricalFocalCrossentropy}"],
            "training.label_smoothing must be 0 with a loss of your own, which may take it as its own key, but got 0.1",
        ),
    ],
)
def test_a_bad_value_of_a_choice_and_a_bad_pair_are_refused(overrides: list[str], said: str) -> None:
    (line,) = problems(*overrides)
    assert line.startswith(said)


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset.validation=1"],
        ["dataset.validation=0.999"],
        ["optimizer.learning_rate=1"],
        ["model.widths=[]"],
        ["training.loss=categorical_crossentropy", "training.label_smoothing=0.1"],
        ["optimizer.schedule=cosine", "optimizer.warmup=0.1"],
        ["training.reduce_lr_patience=2"],
        ["export=mnist.h5"],
    ],
)
def test_what_can_be_used_passes(overrides: list[str]) -> None:
    composed = compose(overrides)
    before = composed.config.copy()
    assert check(composed).values == plain(before)
    assert composed.config == before


def test_all_mistakes_are_listed_at_once() -> None:
    said = problems(
        "seed=-1",
        "dataset.validation=1.5",
        "model.dropout=1.5",
        "model.widths=5",
        "training.epochs=ten",
        "training.label_smoothing=0.1",
        "export=model.onnx",
    )
    keys = [line.split()[0] for line in said]
    assert sorted(keys) == [
        "dataset.validation",
        "export",
        "model.dropout",
        "model.widths",
        "seed",
        "training.epochs",
        "training.label_smoothing",
    ]


def test_mistakes_are_found_before_tensorflow_loads(tmp_path: Path) -> None:
    code = """
import sys, mnist_exp
try:
    mnist_exp.run("training.epochs=ten", "dataset.validation=1.5")
except ValueError as error:
    print(error)
print(sorted({"tensorflow", "keras", "keras_tuner", "mlflow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    *said, loaded = done.stdout.splitlines()
    assert [line.split()[0] for line in said] == ["dataset.validation", "training.epochs"]
    assert loaded == "[]"
    assert not list(tmp_path.iterdir())


def test_the_annotations_of_a_custom_model_are_checked(my_net: str) -> None:
    custom = ["model=custom", f"model._target_={my_net}.net"]
    check(compose([*custom, "+model.width=8", "+model.kind=b"]))
    assert problems(*custom) == ["model.width is missing; give +model.width=..."]
    assert problems(*custom, "+model.width=wide") == ["model.width must be an integer, but got 'wide'"]
    assert problems(*custom, "+model.width=0") == ["model.width must be at least 1, but got 0"]
    assert problems(*custom, "+model.width=8", "+model.kind=c") == ["model.kind must be 'a' or 'b', but got 'c'"]
    (line,) = problems(*custom, "+model.width=8", "+model.knid=b")
    assert line.startswith("model.knid does not exist; did you mean model.kind?")


def test_what_only_a_type_checker_can_look_up_may_be_anything(my_net: str) -> None:
    custom = ["model=custom", f"model._target_={my_net}.net", "+model.width=8", "+model.shapes=[[8,8]]"]
    assert check(compose(custom)).values["model"]["shapes"] == [[8, 8]]


def test_a_custom_model_may_be_untyped_open_ended_or_a_class(my_net: str) -> None:
    check(compose(["model=custom", f"model._target_={my_net}.anything", "+model.width=wide"]))
    check(compose(["model=custom", f"model._target_={my_net}.untyped", "+model.width=wide"]))
    assert problems("model=custom", f"model._target_={my_net}.untyped", "+model.wdith=1")[0].startswith(
        "model.width is missing"
    )
    assert problems("model=custom", f"model._target_={my_net}.Net", "+model.width=wide") == [
        "model.width must be an integer, but got 'wide'"
    ]


def test_the_length_of_a_list_is_not_counted_in_characters(my_net: str) -> None:
    layered = ["model=custom", f"model._target_={my_net}.layered"]
    assert problems(*layered, "+model.widths=[]") == ["model.widths must have a length of at least 1, but got []"]
    assert problems(*layered, "+model.widths=[1,2,3]")[0].startswith("model.widths must have a length of at most 2")


def test_a_home_folder_of_nobody_stays_as_it_is_written() -> None:
    assert check(compose(["tracking.folder='~nobody_here/x'"])).values["tracking"]["folder"] == "~nobody_here/x"
    assert check(compose(["tracking.folder='~/x'"])).values["tracking"]["folder"] == str(Path.home() / "x")


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("nowhere.net", "No module named 'nowhere'"),
        ("net_of_my_own.nett", "net_of_my_own has no nett; did you mean net?"),
        ("net_of_my_own.xyzzy.net", "net_of_my_own has no xyzzy"),
        ("net_of_my_own.Net.wide", "net_of_my_own.Net has no wide"),
        ("needs_more.net", "No module named 'not_installed'"),
        ("net_of_my_own.GREETING", "non-callable"),
        ("builtins.dict", "no signature"),
        ("null", "but got null"),
        ("42", "but got 42"),
    ],
)
def test_a_target_that_cannot_be_called_is_refused(
    target: str, why: str, my_net: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path(sys.path[0], "needs_more.py").write_text("import not_installed\n\ndef net(): ...\n")
    (line,) = problems("model=custom", f"model._target_={target}")
    assert line.startswith("model._target_ must be a function that can be imported, but got ")
    assert why in line
    assert capfd.readouterr() == ("", "")  # said once, by us


@pytest.mark.parametrize(
    ("given", "weights"),
    [("{1:5.0}", {"1": 5.0}), ("{10:2,9:3}", {"10": 2.0, "9": 3.0}), ("{1:2,cat:3}", {"1": 2, "cat": 3})],
)
def test_the_name_of_a_class_may_be_a_number(given: str, weights: dict[str, float]) -> None:
    config = check(compose([f"training.class_weight={given}"]))
    assert config.settings(Training).class_weight == weights
    assert config.hash
    assert config.name
    again = check_values(OmegaConf.to_container(OmegaConf.create(config.to_yaml())), config.choices)
    assert again.hash == config.hash
