"""Random changes of the training images beside a model."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from mnist_exp import experiment, run
from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.errors import ConfigError
from mnist_exp.trainer import Listener
from mnist_exp.training.augmentation import build_augmentation, show_changes

IMAGES = np.random.default_rng(0).integers(0, 255, (5, 12, 12, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def changed(*overrides: str, seed: int = 0, steps: int = 3) -> np.ndarray:
    augmentation = build_augmentation(check(compose([*overrides, f"seed={seed}"])))
    assert augmentation is not None
    return augmentation.samples(IMAGES, steps)


@pytest.mark.parametrize("name", ["digits", "photos"])
def test_images_change_in_every_step_and_by_the_seed(name: str) -> None:
    seen = changed(f"augmentation={name}")
    assert (seen.shape, seen.dtype) == ((3, *IMAGES.shape), np.uint8)
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0][0] - IMAGES[0], seen[0][1] - IMAGES[1])  # each image on its own
    assert np.array_equal(seen, changed(f"augmentation={name}"))
    assert not np.array_equal(seen, changed(f"augmentation={name}", seed=1))


def test_two_layers_of_a_kind_draw_other_numbers() -> None:
    layer = "{_target_:own_training.Speckle,share:0.3}"
    once, twice = changed(f"augmentation=[{layer}]"), changed(f"augmentation=[{layer},{layer}]")
    removed = [float((seen == 0).mean()) for seen in (once, twice)]
    assert removed == pytest.approx([0.3, 1 - 0.7**2], abs=0.04)


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        ("{_target_:own_training.Listed}", []),
        ("{_target_:own_training.Speckle,share:0.3},{_target_:own_training.invert}", []),
        ("{_target_:own_training.noise},{_target_:own_training.invert}", ["noise"]),
        ("{_target_:own_training.Speckle,share:0.3},{_target_:own_training.Wild}", ["Wild"]),
    ],
)
def test_a_layer_that_does_not_repeat_a_step_is_found(entries: str, names: list[str]) -> None:
    config = check(compose([f"augmentation=[{entries}]"]))
    first, second = build_augmentation(config), build_augmentation(config)
    assert first is not None
    assert second is not None
    assert first.find_unrepeatable(IMAGES) == names
    if not names:
        seen = first.samples(IMAGES, 2)
        assert np.array_equal(seen, second.samples(IMAGES, 2))  # as in the process of a resumed training
        assert ("Listed" in entries or "Speckle" in entries) == (not np.array_equal(seen[0], seen[1]))


@pytest.mark.parametrize("preset", ["digits", "photos"])
def test_the_presets_repeat_a_step(preset: str) -> None:
    augmentation = build_augmentation(check(compose([f"augmentation={preset}"])))
    assert augmentation is not None
    assert augmentation.find_unrepeatable(IMAGES) == []


def test_a_run_says_that_its_augmentation_cannot_be_resumed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    notes: list[str] = []

    class Listening(Listener):
        def on_note(self, text: str) -> None:
            notes.append(text)

    given = ["augmentation=[{_target_:own_training.noise}]", "training=smoke", "training.epochs=1", "tracking=off"]
    experiment.run(check(compose([*given, "model.widths=[4]", "dataset.limit=200"])), Listening())
    assert notes == [
        "noise changes images otherwise if the training is resumed: draw with a keras.random.SeedGenerator that is an "
        "attribute of its layer"
    ]


def test_digits_are_not_mirrored() -> None:
    names = [type(layer).__name__ for layer in layers_of("augmentation=digits")]
    assert names == ["RandomTranslation", "RandomRotation", "RandomZoom"]
    assert "RandomFlip" in [type(layer).__name__ for layer in layers_of("augmentation=photos")]


def layers_of(override: str) -> list[keras.layers.Layer]:
    augmentation = build_augmentation(check(compose([override])))
    assert augmentation is not None
    return augmentation.layers


def test_none_builds_nothing() -> None:
    assert build_augmentation(check(compose([]))) is None
    assert build_augmentation(check(compose(["augmentation=[]"]))) is None


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            "augmentation=photo",
            "augmentation must be none, digits, photos or [{_target_: NAME, key: value}], but got 'photo'",
        ),
        ("augmentation=[{mode:horizontal}]", "augmentation[0] must name an object by its _target_"),
        (
            "augmentation=[{_target_:keras.layers.RandomFlop}]",
            "augmentation[0]._target_ must be a class or function that can be imported",
        ),
        ("augmentation=[{_target_:keras.layers.RandomRotation}]", "augmentation[0].factor is missing"),
        (
            "model.augmentation.rotation=0.1",
            "model.augmentation.rotation does not exist; augmentation=... is a key of the top level",
        ),
    ],
)
def test_a_wrong_entry_is_answered(given: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(compose([given]))
    assert line in str(refused.value)


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (
            "{_target_:own_training.crop}",
            "augmentation must keep the shape of the images, (12, 12, 3), but got (11, 11, 3)",
        ),
        (
            "{_target_:keras.layers.MixUp}",
            "augmentation[0] must change each image on its own, because the labels are not mixed with the images, "
            "but got 'MixUp'; use a layer that keeps the class of each image, such as keras.layers.RandomErasing",
        ),
        ("{_target_:own_training.mixing_net}", "but got 'CutMix'"),
        ("{_target_:keras.losses.Huber}", "augmentation[0] must make a layer of Keras's, or be a function of images"),
    ],
)
def test_an_entry_that_makes_something_else_is_answered(entry: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        changed(f"augmentation=[{entry}]")
    assert line in str(refused.value)


def test_a_run_shows_what_the_net_sees_and_stores_a_net_without_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("augmentation=digits", "training=smoke", quiet=True)
    assert list(tmp_path.glob("mlruns/**/figures/augmentation.png"))
    names = [type(layer).__name__ for layer in result.load_model().layers]
    assert not any(name.startswith("Random") for name in names)


def test_a_trial_draws_no_such_figure() -> None:
    from dataclasses import replace

    from mnist_exp.data.load import load_splits

    config = check(compose(["augmentation=digits"]))
    splits = load_splits(config)
    assert show_changes(config, splits) is not None
    assert show_changes(config, replace(splits, test=None)) is None
