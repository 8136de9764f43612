import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mnist_exp.config.check import check
from mnist_exp.config.compose import Source, compose, parse_overrides
from mnist_exp.config.recorded import ExecutionWhitelist
from mnist_exp.config.run_config import BaseConfig, RunConfig, format_value
from mnist_exp.config.schema import DaskExecutor, Executor, General, Optimizer, Split, Training

AWKWARD: list[Any] = [
    "my data (1).npz",
    "Ankle boot",
    "it's",
    'say "so"',
    "x=y",
    "{}",
    "a,b",
    "123",
    "1e5",
    "true",
    "null",
    "",
    " padded ",
    "Grün",
    "é日本",
    "back\\slash",
    "${not} a reference",
    123,
    0.1,
    1e-7,
    True,
    None,
    [128, 64],
    ["Ankle boot", "a,b"],
    [],
    {"key": "a value"},
]


def config(*overrides: str) -> RunConfig:
    return check(compose(overrides))


def test_the_defaults_differ_in_nothing() -> None:
    assert config().differences() == ({}, {})


def test_differences_name_choices_and_what_differs_within_them() -> None:
    changed = config("model=cnn", "optimizer=adam", "model.dense=[8, 4]", "seed=3", "training.resume=null")
    assert changed.differences() == ({"model": "cnn"}, {"model.dense": [8, 4], "seed": 3})


def test_differences_of_an_experiment_are_what_it_sets() -> None:
    choices, values = config("experiment=cnn_adadelta_1").differences()
    assert {"experiment": "cnn_adadelta_1", "model": "cnn"}.items() <= choices.items()
    assert values["training.batch_size"] == 128
    assert not any(key.startswith("optimizer.") for key in values), "1.0 is the default"


def test_a_run_is_named_by_its_choices_and_its_seed() -> None:
    assert config().name == "mlp-adam-s0"
    assert config("model=cnn", "optimizer=sgd", "seed=3").name == "cnn-sgd-s3"
    assert config("experiment=dense_100").name == "dense_100-s0"
    assert config("name=mine").name == "mine"


def test_two_nets_with_the_same_choices_have_names_of_their_own() -> None:
    names = [config(*more).name for more in (("model.widths=[16]",), ("model.widths=[32]",), ("training.epochs=3",))]
    assert len({*names, "mlp-adam-s0"}) == 4
    assert all(re.fullmatch(r"mlp-adam-[0-9a-f]{6}-s0", name) for name in names)
    assert config("model.widths=[16]", "seed=3").name == names[0].replace("-s0", "-s3")
    assert config("tracking.folder=elsewhere", "export=net.h5").name == "mlp-adam-s0"


def test_settings_are_typed() -> None:
    found = config("training.epochs=3", "seed=2", "executor=dask", "executor.address=tcp://a:1")
    assert found.settings(Training).epochs == 3
    assert found.settings(General).seed == 2
    assert (found.settings(Split).name, found.settings(Optimizer).learning_rate) == ("digits", 0.001)
    cluster = found.settings(Executor)
    assert isinstance(cluster, DaskExecutor)
    assert cluster.address == "tcp://a:1"


def test_a_section_calls_its_target_with_its_own_keys() -> None:
    dataset = config("dataset.size=8").build("dataset")
    assert dataset.train.images.shape[1:3] == (8, 8)


def test_the_hash_is_of_what_is_trained_wherever_it_is_recorded() -> None:
    ours = config("seed=1")
    assert config("seed=1", "name=mine", "tracking.folder=there").hash == ours.hash
    assert config("seed=2").hash != ours.hash


def test_a_hash_of_an_earlier_version_still_holds() -> None:
    values = {
        "seed": 1,
        "name": None,
        "export": None,
        "dataset": {"size": 8},
        "tracking": {"folder": "mlruns"},
        "training": {"epochs": 2, "resume": None},
    }
    assert RunConfig(values, {}).hash == "22dc8450714bd381"


@pytest.mark.parametrize("value", AWKWARD, ids=repr)
def test_a_value_is_shown_as_it_can_be_typed(value: Any) -> None:
    """FOUND 1: values keep their type, their blanks and their special characters."""
    (override,) = parse_overrides([f"key={format_value(value)}"])
    assert override.value() == value or value == "${not} a reference"


@pytest.mark.parametrize(
    "value", [text for text in AWKWARD if isinstance(text, str) and text.strip() and "$" not in text]
)
def test_an_experiment_file_composes_the_same_config_again(value: str, tmp_path: Path) -> None:
    """FOUND 1: `my data.npz` became `mydata.npz` in best.yaml, and the string "123" a number."""
    first = config("dataset=npz", "dataset.path=x", "model=cnn", "training.epochs=3").with_values(
        {"dataset.path": value, "dataset.class_names": [value, "b"]}
    )
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "best.yaml").write_text(first.experiment_file("Trial 3."), encoding="utf-8")
    again = check(compose(["experiment=best"], Source(more=(str(tmp_path),))))
    assert again.values == first.values
    assert first.experiment_file("Trial 3.").startswith("# @package _global_\n# Trial 3.\n")


def test_an_experiment_file_says_nothing_of_where_a_run_is_kept() -> None:
    text = config("name=mine", "tracking.folder=there", "seed=4").experiment_file()
    assert OmegaConf.to_container(OmegaConf.create(text)) == {"seed": 4}


def test_a_trial_sets_values_before_interpolations_are_resolved() -> None:
    composed = compose(["model.dropout=0.1"])
    base = BaseConfig.from_record(BaseConfig(composed.config, composed.choices).to_record(), ExecutionWhitelist())
    trial = base.with_values({"dataset.name": "mine", "model.widths": [4, 4]})
    assert (trial.values["tracking"]["experiment"], trial.values["model"]["widths"]) == ("mine", [4, 4])
    assert trial.choices == composed.choices
    assert composed.config.model.widths == [128], "the base stays as it was"


def test_the_recorded_values_leave_out_what_a_run_has_no_use_for() -> None:
    kept = OmegaConf.create(config("seed=2").with_values({"training.resume": "abc"}).to_yaml())
    assert kept.training.resume is None
    assert "sweep" not in kept
    assert kept.seed == 2


def test_a_home_folder_is_expanded_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND 3."""
    monkeypatch.setenv("HOME", "/home/me")
    found = config("dataset=npz", 'dataset.path="~/photos.npz"', 'tracking.folder="~/runs"', 'name="~x"')
    assert found.values["dataset"]["path"] == "/home/me/photos.npz"
    assert found.values["tracking"]["folder"] == "/home/me/runs"
    assert found.values["name"] == "~x"
