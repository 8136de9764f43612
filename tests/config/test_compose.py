import shlex
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mnist_exp.config.check import check
from mnist_exp.config.compose import CONF, GROUPS, ROOT, Source, compose, compose_command_line, flatten, known_keys
from mnist_exp.config.run_config import plain
from mnist_exp.config.schema import SWEEP_SECTIONS
from mnist_exp.errors import ConfigError, Problem

NEEDS = {  # what a choice cannot do without
    "dataset=folder": ["dataset.path=photos"],
    "dataset=npz": ["dataset.path=mine.npz"],
    "dataset=csv": ["dataset.path=mine.csv"],
    "dataset=arrays": ["dataset._target_=collections.Counter"],
    "optimizer=custom": ["optimizer._target_=keras.optimizers.Lion"],
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
    return dict(flatten(plain(compose(overrides).config)))


def refuse(*overrides: str) -> Problem:
    """The one problem of these overrides."""
    with pytest.raises(ConfigError) as refused:
        compose(overrides)
    (problem,) = refused.value.problems
    return problem


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_passes_the_checks(choice: str) -> None:
    composed = compose([choice, *NEEDS.get(choice, [])])
    config = check(composed)
    group, _, name = choice.partition("=")
    assert config.choices.get(group) == (None if group in SWEEP_SECTIONS else name)


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
    choices = compose([f"experiment={name}"]).choices
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


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("training.epohcs=3", "training.epochs"),
        ("trainig.epochs=3", "training.epochs"),
        ("modle=cnn", "model"),
        ("training={epohcs:3}", "training.epochs"),
        ("dataset.pth=mine.npz", "dataset.path"),
        ("sed=1", "seed"),
        ("model=ccn", "cnn"),
        ("model=CNN", "cnn"),
        ("experiment=dense100", "dense_100"),
        ("optimizer=adamm", "adam"),
        ("sweeps=optimizer", "optimizers"),
    ],
)
def test_a_typo_is_answered_with_what_was_meant(override: str, meant: str) -> None:
    problem = refuse(override)
    assert problem.remedy == f"did you mean {meant}?"
    assert override.startswith(problem.key.split(".")[0])


def test_a_word_like_no_other_gets_no_suggestion() -> None:
    assert refuse("xyzzy=3") == Problem("xyzzy", "does not exist", remedy="+xyzzy=... adds it")


@pytest.mark.parametrize(("override", "group"), [("model=xyzzy", "model"), ("training=", "training")])
def test_a_choice_that_is_not_there_lists_those_that_are(override: str, group: str) -> None:
    assert all(path.stem in refuse(override).rule for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("override", "having"),
    [
        ("dataset.path=x", "dataset=csv, dataset=fashion_mnist, dataset=folder, dataset=mnist, dataset=npz"),
        ("dataset={path: x}", "dataset=csv, dataset=fashion_mnist, dataset=folder, dataset=mnist, dataset=npz"),
        ("model.kernel=5", "model=cnn"),
        ("optimizer.nesterov=true", "optimizer=sgd"),
    ],
)
def test_a_key_of_another_choice_names_the_choices_that_have_it(override: str, having: str) -> None:
    problem = refuse(override)
    assert (problem.rule, problem.remedy) == ("does not exist in this config", f"use it with {having}")


def test_a_key_of_the_users_own_is_added_with_a_plus() -> None:
    assert refuse("model.qqqqqq=3").remedy == "+model.qqqqqq=... adds it"
    assert values("+model.qqqqqq=3")["model.qqqqqq"] == 3


@pytest.mark.parametrize("override", ["training.epochs", "model.widths=[128,64", "training.epochs==3", "ui"])
def test_a_malformed_override_is_named(override: str) -> None:
    assert refuse(override) == Problem(override, "must be KEY=VALUE in Hydra's syntax", remedy="see --help")


@pytest.mark.parametrize("value", ["~/photos", "Grün", "a(1)", "it's", "x=y", "é日本", 'say "so"', "my data (1).npz"])
def test_a_value_that_needs_quotes_is_answered_with_the_line_to_type(value: str) -> None:
    """FOUND 3: the line is what a shell must be given, and composes to the value."""
    problem = refuse(f"name={value}")
    assert "stands in quotes" in problem.rule
    (typed,) = shlex.split(problem.remedy.removeprefix("type "))
    assert values(typed)["name"] == value


@pytest.mark.parametrize(
    ("override", "rule", "remedy"),
    [
        ("model.widths=128,64", "takes one value", "'model.widths=[128,64]' is one list, -m runs once for each value"),
        ("optimizer=adam,sgd", "takes one value", "'optimizer=[adam,sgd]' is one list, -m runs once for each value"),
        ("+model=cnn", "is chosen already", "write model=cnn without +"),
        ("++model=cnn", "is chosen already", "write model=cnn without +"),
        ("model=null", "must be one name", "write model=NAME"),
        ("~xyzzy", "does not exist", "+xyzzy=... adds it"),
    ],
)
def test_an_override_that_cannot_be_followed_says_what_to_do(override: str, rule: str, remedy: str) -> None:
    problem = refuse(override)
    assert (problem.rule, problem.remedy) == (rule, remedy)


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("optimizer@opt2=adam", "must not name a package"),
        ("optimizer=[adam,sgd]", "must be one name"),
        ("experiment=[dense_100,cnn_small]", "must be one name"),
    ],
)
def test_what_hydra_would_merge_silently_is_refused(override: str, rule: str) -> None:
    """FOUND 5."""
    assert refuse(override).rule == rule


def test_an_interpolation_without_a_value_is_a_problem_of_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND 2: it was 173 lines of traceback."""
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError) as refused:
        check(compose(["training.epochs=${oc.env:NOT_SET}"]))
    (problem,) = refused.value.problems
    assert (problem.key, problem.rule) == ("training.epochs", "cannot be resolved")
    assert "NOT_SET" in problem.remedy


def test_every_override_that_cannot_be_followed_is_listed() -> None:
    with pytest.raises(ConfigError) as refused:
        compose(["training.epohcs=3", "modle=cnn", "seed=1,2"])
    assert [problem.key for problem in refused.value.problems] == ["seed"], "the form comes first"
    with pytest.raises(ConfigError) as refused:
        compose(["training.epohcs=3", "modle=cnn"])
    assert [problem.key for problem in refused.value.problems] == ["training.epohcs", "modle"]


def test_a_key_without_a_default_is_known() -> None:
    """dataset.path of dataset=npz is `???`."""
    with pytest.raises(ConfigError) as refused:
        compose(["dataset=npz", "dataset.path=x", "training.epohcs=3"])
    assert [problem.key for problem in refused.value.problems] == ["training.epohcs"]


def test_the_last_of_two_overrides_counts() -> None:
    assert values("seed=1", "seed=2")["seed"] == 2
    assert compose(["model=cnn", "model=resnet"]).choices["model"] == "resnet"


def test_composing_leaves_nothing_behind() -> None:
    with pytest.raises(ConfigError):
        compose(["model=xyzzy"])
    assert values("model=cnn")["model.kernel"] == 3
    assert "model.kernel" not in values()


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A folder with an experiment, a study and a primary config of the user's own."""
    for group, name, text in [
        ("experiment", "mine", "# @package _global_\nseed: 7\n"),
        ("sweeps", "mine", "# @package _global_\nsweep:\n  space: {seed: '1, 2'}\n"),
        (".", "own", "defaults: [config, _self_]\nname: mine\n"),
    ]:
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / f"{name}.yaml").write_text(text)
    return tmp_path


def test_experiments_and_studies_may_lie_outside_of_the_package(own_folder: Path) -> None:
    """FOUND 31: a folder of --config-dir is used again when the trials of a sweep are composed."""
    source = Source(more=(str(own_folder),))
    assert compose(["experiment=mine"], source).config.seed == 7
    assert compose(["sweeps=mine"], source).config.sweep.space == {"seed": "1, 2"}
    assert compose([], Source("own", more=(str(own_folder),))).config.name == "mine"
    with pytest.raises(ConfigError) as refused:
        compose(["experiment=mina"], source)
    assert refused.value.problems[0].remedy == "did you mean mine?"


def test_a_study_of_the_current_folder_is_found(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND 31."""
    monkeypatch.chdir(own_folder)
    assert compose(["sweeps=mine"]).config.sweep.space == {"seed": "1, 2"}


@pytest.mark.parametrize("folder", [".", "conf"])
def test_a_file_that_is_not_yaml_is_named_with_its_line(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / folder / "experiment" / "bad.yaml"
    bad.parent.mkdir(parents=True)
    bad.write_text("# @package _global_\nseed: [1, 2\ntraining:\n  epochs: 1\n")
    with pytest.raises(ConfigError) as refused:
        compose(["experiment=bad"])
    (problem,) = refused.value.problems
    assert Path(problem.key).resolve() == bad
    assert problem.rule == "must be YAML, but expected ',' or ']', but got ':' in line 3, column 9"
    monkeypatch.setattr("sys.argv", ["mnist_exp", "experiment=bad"])
    with pytest.raises(ConfigError, match="must be YAML"):
        compose_command_line()
    known_keys.cache_clear()
    with pytest.raises(ConfigError, match=r"did you mean training\.epochs"):  # one that is not chosen does not matter
        compose(["training.epohcs=3"])


@pytest.mark.parametrize("folder", [".", "conf"])
def test_a_file_with_the_name_of_a_choice_of_ours_is_refused_if_it_is_chosen(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / folder / "model" / "cnn.yaml"
    own.parent.mkdir(parents=True)
    own.write_text((CONF / "model" / "cnn.yaml").read_text().replace("kernel: 3", "kernel: 5"))
    compose(["model=mlp"])
    with pytest.raises(ConfigError) as refused:
        compose(["model=cnn"])
    (problem,) = refused.value.problems
    assert Path(problem.key).resolve() == own
    assert problem.rule == "has the name of a choice of mnist_exp, model=cnn, which is found first"
    assert problem.remedy == "rename it, and choose it with model=NAME"
    monkeypatch.chdir("/")
    with pytest.raises(ConfigError, match="has the name of a choice of mnist_exp"):  # with --config-dir
        compose(["model=cnn"], Source(more=(str(tmp_path / folder),)))
    monkeypatch.chdir(tmp_path)
    own.rename(own.with_name("mine.yaml"))
    assert compose(["model=mine"]).config.model.kernel == 5
