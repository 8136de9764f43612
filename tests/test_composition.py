from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mnist_exp.config.check import check
from mnist_exp.config.compose import CONF, GROUPS, OF_SWEEPS, ROOT, compose
from mnist_exp.config.run_config import differences, flatten
from mnist_exp.errors import ConfigError

NEEDS = {  # what a choice cannot do without
    "dataset=folder": ["dataset.path=photos"],
    "dataset=npz": ["dataset.path=mine.npz"],
    "model=custom": ["model._target_=collections.Counter"],
    "executor=dask": ["executor.address=tcp://scheduler:8786"],
}
FOLDERS = {group: (ROOT if group == "sweeps" else CONF) / group for group in GROUPS}
CHOICES = [f"{group}={path.stem}" for group, folder in FOLDERS.items() for path in sorted(folder.glob("*.yaml"))]
EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))
RECIPES: dict[str, dict[str, Any]] = {
    "dense_128_64": {
        "model.widths": [128, 64],
        "model.activation": "relu",
        "model.dropout": 0.0,
        "dataset.validation": 0.2,
        "training.loss": "sparse_categorical_crossentropy",
    },
    "dense_128_128": {"model.widths": [128, 128], "model.activation": "relu"},
    "cnn_small": {"training.loss": "sparse_categorical_crossentropy"},
    "dense_100": {
        "model.widths": [100],
        "training.epochs": 25,
        "training.batch_size": 32,
        "dataset.validation": 0.2,
        "dataset.method": "tail",
        "training.weights": "last",
        "training.early_stopping_patience": None,
        "training.reduce_lr_patience": None,
    },
    "cnn_adadelta": {
        "model.blocks": [[32, 64]],
        "model.kernel": 3,
        "model.pooling": 2,
        "model.block_dropout": 0.25,
        "model.dense": [256],
        "model.dense_dropout": 0.5,
        "optimizer.learning_rate": 0.001,
        "optimizer.schedule": "constant",
        "training.loss": "categorical_crossentropy",
        "training.label_smoothing": 0.0,
        "training.batch_size": 128,
        "training.epochs": 50,
        "training.weights": "best",
        "training.checkpoint_monitor": "val_accuracy",
        "training.early_stopping_monitor": "val_loss",
        "training.early_stopping_patience": 5,
        "dataset.validation": 5000,
        "export": "mnist.h5",
    },
    "cnn_adadelta_1": {
        "model.blocks": [[32, 64]],
        "optimizer.learning_rate": 1.0,
        "training.epochs": 12,
        "training.batch_size": 128,
        "training.loss": "categorical_crossentropy",
        "export": None,
    },
}
MADE_OF = {
    "dense_128_64": ("mlp", "adam"),
    "dense_128_128": ("mlp", "adam"),
    "cnn_small": ("cnn", "adam"),
    "dense_100": ("mlp", "adam"),
    "cnn_adadelta": ("cnn", "adadelta"),
    "cnn_adadelta_1": ("cnn", "adadelta"),
}


def values(*overrides: str) -> dict[str, Any]:
    return dict(flatten(OmegaConf.to_container(compose(overrides)[0], resolve=True)))


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        compose(overrides)
    return str(refused.value)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_passes_the_checks(choice: str) -> None:
    cfg, choices = compose([choice, *NEEDS.get(choice, [])])
    check(cfg)
    group, _, name = choice.partition("=")
    assert choices.get(group) == (None if group in OF_SWEEPS else name)


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if not choice.startswith(("experiment", "sweeps"))])
def test_a_choice_sets_keys_of_its_own_group_only(choice: str) -> None:
    group, _, name = choice.partition("=")
    ours, default = values(choice, *NEEDS.get(choice, [])), values()
    others = {key for key in ours if not key.startswith(f"{group}.")} - {"tracking.experiment"}
    assert {key: ours[key] for key in others} == {key: default[key] for key in others}
    assert (CONF / group / f"{name}.yaml").read_text().startswith("# python -m mnist_exp")


@pytest.mark.parametrize("name", RECIPES)
def test_an_experiment_is_its_recipe(name: str) -> None:
    found = values(f"experiment={name}")
    assert {key: found[key] for key in RECIPES[name]} == RECIPES[name]
    _, choices = compose([f"experiment={name}"])
    assert (choices["model"], choices["optimizer"], choices["dataset"]) == (*MADE_OF[name], "mnist")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_is_headed_by_its_command(path: Path) -> None:
    assert f"python -m mnist_exp experiment={path.stem}" in path.read_text()


def test_the_command_line_wins_over_the_experiment() -> None:
    found = values("experiment=cnn_adadelta", "training.epochs=1", "model.dense=[]", "dataset=digits")
    assert (found["training.epochs"], found["model.dense"], found["dataset.name"]) == (1, [], "digits")


def test_the_learning_rate_is_always_written() -> None:
    for path in (CONF / "optimizer").glob("*.yaml"):
        assert OmegaConf.load(path).learning_rate > 0
    assert values("optimizer=adadelta")["optimizer.learning_rate"] == 1.0


def test_overfit_and_smoke_are_short() -> None:
    assert values("training=overfit")["training.batches"] == 1
    smoke = values("training=smoke")
    assert smoke["training.epochs"] * smoke["training.batches"] <= 20


def test_differences_of_the_defaults_are_none() -> None:
    assert differences(*compose([])) == []


def test_differences_name_choices_and_what_differs_within_them() -> None:
    composed = compose(["model=cnn", "optimizer=adam", "model.dense=[8, 4]", "seed=3", "training.resume=null"])
    assert differences(*composed) == ["model=cnn", "model.dense=[8,4]", "seed=3"]


def test_differences_of_an_experiment_are_what_it_sets() -> None:
    found = differences(*compose(["experiment=cnn_adadelta_1"]))
    assert {"experiment=cnn_adadelta_1", "model=cnn", "training.batch_size=128"} <= set(found)
    assert not any(difference.startswith("optimizer.") for difference in found)  # 1.0 is the default


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("training.epohcs=3", "epochs"),
        ("trainig.epochs=3", "training.epochs"),
        ("modle=cnn", "model"),
        ("model.augmentation.rotate=0.1", "rotation"),
        ("model.augmentation={rotate:0.1}", "rotation"),
        ("dataset.pth=mine.npz", "path"),
        ("sed=1", "seed"),
        ("model=ccn", "cnn"),
        ("model=CNN", "cnn"),
        ("experiment=dense100", "dense_100"),
        ("optimizer=adamm", "adam"),
        ("sweeps=optimizer", "optimizers"),
    ],
)
def test_a_typo_is_answered_with_what_was_meant(override: str, meant: str) -> None:
    said = refusal(override)
    key = override.split("=")[0]
    assert f"(did you mean {meant}?)" in said
    assert key in said or key.split(".")[0] in said


def test_a_word_like_no_other_gets_no_suggestion() -> None:
    assert "did you mean" not in refusal("xyzzy=3")
    assert "--cfg job" in refusal("xyzzy=3")


@pytest.mark.parametrize(("override", "group"), [("model=xyzzy", "model"), ("training=", "training")])
def test_a_choice_that_is_not_there_lists_those_that_are(override: str, group: str) -> None:
    said = refusal(override)
    assert all(path.stem in said for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("override", "having"),
    [
        ("dataset.path=x", "dataset=fashion_mnist, dataset=folder, dataset=mnist, dataset=npz"),
        ("dataset={path: x}", "dataset=fashion_mnist, dataset=folder, dataset=mnist, dataset=npz"),
        ("model.kernel=5", "model=cnn"),
        ("optimizer.nesterov=true", "optimizer=sgd"),
    ],
)
def test_a_key_of_another_choice_names_the_choices_that_have_it(override: str, having: str) -> None:
    assert refusal(override).endswith(f"these choices have it: {having}")


def test_a_key_of_the_users_own_is_added_with_a_plus() -> None:
    assert "+model.depth9=..." in refusal("model.depth9=3")
    assert values("+model.depth9=3")["model.depth9"] == 3


@pytest.mark.parametrize("override", ["training.epochs", "model.widths=[128,64", "training.epochs==3", "ui"])
def test_a_malformed_override_is_shown_with_the_form_it_should_have(override: str) -> None:
    said = refusal(override)
    assert "must be key=value" in said
    assert repr(override) in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("model.widths=128,64", "'model.widths=[128,64]'"),
        ("optimizer=adam,sgd", "-m runs once with each"),
        ("+model=cnn", "give model=..."),
        ("++model=cnn", "give model=..."),
        ("~xyzzy", "'xyzzy'"),
        ("model=null", "cannot be composed"),
    ],
)
def test_an_override_that_cannot_be_followed_says_what_to_do(override: str, remedy: str) -> None:
    assert remedy in refusal(override)


def test_the_last_of_two_overrides_counts() -> None:
    assert values("seed=1", "seed=2")["seed"] == 2
    assert compose(["model=cnn", "model=resnet"])[1]["model"] == "resnet"


def test_composing_leaves_nothing_behind() -> None:
    with pytest.raises(ConfigError):
        compose(["model=xyzzy"])
    assert values("model=cnn")["model.kernel"] == 3
    assert "model.kernel" not in values()
