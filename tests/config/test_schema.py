"""conf/ holds defaults and comments, the schema types, limits and flags. Both name the same keys."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import pytest
from omegaconf import OmegaConf
from pydantic import TypeAdapter

from mnist_exp.config.compose import CONF, GROUPS
from mnist_exp.config.help import comments
from mnist_exp.config.schema import SECTIONS, Flag, Section, keys_with, section_model
from mnist_exp.config.targets import import_target

FILES = sorted(path for group in GROUPS if group in SECTIONS for path in (CONF / group).glob("*.yaml"))
LATER = "???"  # a value that a command line must give


def read(path: Path) -> dict[str, Any]:
    """The keys of a choice, those of the choice that it inherits from included."""
    found: Any = OmegaConf.to_container(OmegaConf.load(path))
    for base in found.pop("defaults", []):
        found = {**read(path.with_name(f"{base}.yaml")), **found}
    return found


def model_of(path: Path) -> type[Section]:
    keys = read(path)
    target = keys.get("_target_", LATER)
    function = None if target == LATER else import_target(target)
    return section_model(path.parent.name, function, keys.get("kind"))


def name(path: Path) -> str:
    return f"{path.parent.name}={path.stem}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_choice_holds_exactly_the_keys_of_the_schema(path: Path) -> None:
    """Fails if a field is deleted from the schema or an argument from a function, or if conf/ lacks one.

    Nets still take `augmentation`, which configs of version 0.1 have.
    """
    kept = {key for key in read(path) if key != "_target_"}
    fields = set(model_of(path).model_fields) - ({"augmentation"} if path.parent.name == "model" else set())
    assert kept == fields or (read(path).get("_target_") == LATER and kept <= fields)


def test_the_top_level_holds_exactly_the_keys_of_the_schema() -> None:
    keys = {str(key) for key in OmegaConf.load(CONF / "config.yaml")} - {"defaults", "hydra"}
    assert keys == set(section_model("").model_fields)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_default_passes_its_own_check(path: Path) -> None:
    fields = model_of(path).model_fields
    for key, value in read(path).items():
        if key == "_target_" or value == LATER or "${" in str(value):
            continue
        annotated: Any = Annotated[fields[key].annotation, fields[key]]
        TypeAdapter(annotated, config=Section.model_config).validate_python(value)


@pytest.mark.parametrize("group", [group for group in GROUPS if group in SECTIONS])
def test_every_key_is_explained_in_one_file_of_its_group(group: str) -> None:
    files = [path for path in FILES if path.parent.name == group]
    explained = {key for path in files for key, text in comments(path).items() if text}
    keys = {key for path in files for key in read(path)} - {"_target_"}
    assert keys <= explained


def test_the_flags_are_those_that_commands_rely_on() -> None:
    assert set(keys_with(Flag.RESUME, "training", "tracking")) == {
        "training.epochs",
        "training.timeout",
        "training.program_cache",
        "training.feature_cache",
        "training.resume",
        "tracking.enabled",
        "tracking.uri",
        "tracking.experiment",
        "tracking.folder",
        "tracking.execution_whitelist",
        "tracking.system_metrics",
    }
    assert set(keys_with(Flag.RESUME, "sweep")) == {
        "sweep.max_trials",
        "sweep.max_epochs",
        "sweep.patience",
        "sweep.confirm",
        "sweep.confirm_seeds",
        "sweep.trial_timeout",
        "sweep.take_over",
        "sweep.timeout",
        "sweep.resume",
        "sweep.save_best",
    }
    assert set(keys_with(Flag.LABEL)) == {
        "name",
        "training.program_cache",
        "training.feature_cache",
        "training.resume",
        "tracking.enabled",
        "tracking.uri",
        "tracking.experiment",
        "tracking.folder",
        "tracking.execution_whitelist",
        "tracking.system_metrics",
    }
    assert keys_with(Flag.SECRET) == ["tracking.uri"]  # of executors it is that of executor=dask
    for target in ("mnist", "fashion_mnist", "npz", "folder"):
        fields = section_model("dataset", import_target(f"mnist_exp.data.{target}")).model_fields
        assert Flag.PATH in fields["path"].metadata, target


def test_what_the_program_passes_is_no_key() -> None:
    for path in FILES:
        keys = read(path)
        if (target := keys.get("_target_", LATER)) != LATER:
            passed = SECTIONS[path.parent.name].passed
            assert set(passed) <= set(inspect.signature(import_target(target)).parameters)
            assert not set(passed) & set(keys)
