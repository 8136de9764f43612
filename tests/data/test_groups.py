"""Groups of images on one side of a split, folds, and near copies."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mnist_exp.config.schema import Split
from mnist_exp.data.dataset import Dataset, ImageSet
from mnist_exp.data.groups import group_by_path
from mnist_exp.data.near_copies import find_near_copies
from mnist_exp.data.splits import Splits, split
from mnist_exp.errors import DataError

RNG = np.random.default_rng(0)


def photo(seed: int, side: int = 40) -> Image.Image:
    """A colour image with shapes, as a photo has."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def images(count: int, patients: int | None = None, classes: int = 3) -> ImageSet:
    pixels = np.stack([np.asarray(photo(seed)) for seed in range(count)])
    groups = None if patients is None else RNG.integers(0, patients, count)
    return ImageSet(pixels, RNG.integers(0, classes, count), groups)


def cut(train: ImageSet, test: ImageSet | None = None, validation: ImageSet | None = None, **keys: Any) -> Splits:
    data = Dataset(train, test, ("a", "b", "c"), "mine", validation=validation)
    given = {
        "validation": keys.pop("share", 0.2),
        "method": "stratified",
        "test": 0.2,
        "limit": None,
        "seed": 0,
        "folds": None,
    }
    return split(data, Split.model_construct(name="mine", **{**given, **keys}))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", ["stratified", "tail"])
def test_no_group_is_on_two_sides(seed: int, method: str) -> None:
    splits = cut(images(240, patients=30), seed=seed, method=method)
    sides = [set(part.groups.tolist()) for part in splits.parts.values() if part.groups is not None]
    assert len(sides) == 3
    assert len(set.union(*sides)) == sum(map(len, sides))
    assert sum(map(len, splits.parts.values())) == 240
    assert 0.1 < len(splits.validation) / 240 < 0.3


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.4, 0.6, 0.8])
def test_groups_are_drawn_in_about_the_share_that_is_wanted(share: float) -> None:
    whole = replace(images(240), groups=np.arange(240) // 4)
    splits = cut(whole, test=images(250)[np.arange(240, 250)], share=share)
    assert abs(len(splits.validation) / 240 - share) < 0.02


def test_what_groups_do_not_allow_is_noted() -> None:
    whole = replace(images(120), groups=np.arange(120) // 40)
    notes = cut(whole, test=images(130)[np.arange(120, 130)], share=0.1, method="tail").notes
    assert "40 validation images instead of 12, because whole groups are drawn" in notes
    assert "dataset.method=tail is not used: of images in groups, whole groups are drawn" in notes


def test_small_classes_in_groups_are_divided() -> None:
    whole = replace(images(12), labels=np.arange(12) % 3, groups=np.arange(12))
    assert len(cut(whole, test=images(20)[np.arange(12, 20)]).validation) == 3
    with pytest.raises(DataError, match=r"dataset.folds must be at most 4, the number of groups, or of images"):
        cut(whole, test=images(20)[np.arange(12, 20)], folds=5)


def test_one_group_cannot_be_divided() -> None:
    with pytest.raises(DataError, match=r"dataset.group must name at least 2 groups"):
        cut(images(60, patients=1))


def test_given_splits_with_a_group_on_two_sides_are_refused() -> None:
    whole = replace(images(90), groups=np.arange(90) % 5)
    train, test = whole[np.arange(60)], whole[np.arange(60, 90)]
    with pytest.raises(
        DataError, match=r"dataset.group must not have a group on two sides, but 4 are in train and test"
    ):
        cut(train, test)


def test_a_path_names_the_group() -> None:
    paths = ["cat/camera_7_a.png", "cat/camera_12_b.png", "dog/camera_7_c.png"]
    assert group_by_path(paths, "camera_([0-9]+)").tolist() == [1, 0, 1]
    assert group_by_path(paths, "[0-9]+").tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("camera_([0-9]+", "dataset.group must be a regular expression (missing ), unterminated subpattern"),
        ("lens", "dataset.group must match the path of every image, but does not match a/1.png"),
    ],
)
def test_a_wrong_pattern_is_answered(pattern: str, line: str) -> None:
    with pytest.raises(DataError) as refused:
        group_by_path(["a/1.png"], pattern)
    assert line in str(refused.value)


@pytest.mark.parametrize("patients", [None, 25])
def test_every_image_is_in_one_fold(patients: int | None) -> None:
    splits = cut(images(200, patients), folds=5)
    places = np.sort(np.concatenate(splits.folds))
    assert places.tolist() == list(range(len(splits.train)))
    assert list(splits.parts) == ["in 5 folds", "test"]
    for number in range(1, 6):
        fold = splits.fold(number)
        assert len(fold.train) + len(fold.validation) == len(splits.train)
        assert not np.isin(fold.validation.digests, fold.train.digests).any()
        if fold.train.groups is not None:
            assert not np.isin(fold.validation.groups, fold.train.groups).any()
        else:
            shares = [np.bincount(part.labels) / len(part) for part in (fold.train, fold.validation)]
            assert np.abs(shares[0] - shares[1]).max() < 0.06


@pytest.mark.parametrize(("patients", "in_two"), [(None, 0), (40, 60)])
def test_copies_are_in_one_fold_or_counted(patients: int | None, in_two: int) -> None:
    """Each of 30 images comes twice; of patients, the two are of different ones."""
    once = images(150)
    whole = once[np.concatenate([np.arange(150), np.arange(30)])]
    if patients:
        whole = replace(whole, groups=np.arange(180) % patients)
    splits = cut(whole, test=images(160)[np.arange(150, 160)], folds=5)
    places = np.sort(np.concatenate(splits.folds))
    assert places.tolist() == list(range(180))
    found = 0
    for number in range(1, 6):
        fold = splits.fold(number)
        found += int(np.isin(fold.validation.digests, fold.train.digests).sum())
    assert found == splits.repeated.get("two folds", 0)
    assert found <= in_two
    assert (found == 0) == (patients is None)


@pytest.mark.parametrize("grouped", [True, False])
def test_a_class_in_one_fold_alone_is_named(grouped: bool) -> None:
    whole = images(90, classes=2)
    whole.labels[7] = 2
    if grouped:
        whole.labels[17] = 2
        whole = replace(whole, groups=np.arange(90) % 10)
    splits = cut(whole, test=images(100)[np.arange(90, 100)][np.zeros(1, int)], folds=5)
    fold = next(number for number, chosen in enumerate(splits.folds, 1) if 7 in chosen)
    note = f"fold {fold} has all images of 1 class (c): its net was trained on none of them"
    assert [one for one in splits.notes if one.startswith("fold")] == [note]


def test_validation_images_of_the_data_set_are_in_folds_too() -> None:
    whole = images(120)
    splits = cut(whole[np.arange(80)], validation=whole[np.arange(80, 120)], test=images(30), folds=4)
    assert sum(map(len, splits.folds)) == len(splits.train)


@pytest.mark.parametrize(
    ("patients", "folds", "line"),
    [(None, 500, "dataset.folds must be at most"), (3, 5, "dataset.folds must be at most")],
)
def test_too_many_folds_are_refused(patients: int | None, folds: int, line: str) -> None:
    with pytest.raises(DataError) as refused:
        cut(images(60, patients), test=images(10), folds=folds)
    assert line in str(refused.value)


def saved_again(image: Image.Image) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return np.asarray(Image.open(buffer).convert("RGB"))


def smaller(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((22, 22)).resize((40, 40)))


def brighter(image: Image.Image) -> np.ndarray:
    return np.asarray(ImageEnhance.Brightness(image).enhance(1.08))


def pack(arrays: Sequence[Any]) -> ImageSet:
    return ImageSet(np.stack([np.asarray(one) for one in arrays]), np.zeros(len(arrays), np.int64))


@pytest.mark.parametrize("change", [saved_again, smaller, brighter])
def test_near_copies_are_found_and_others_are_not(change: Any) -> None:
    train = pack([photo(seed) for seed in range(300)])
    other = pack([change(photo(seed)) for seed in range(0, 300, 10)] + [photo(seed) for seed in range(1000, 1300)])
    found = find_near_copies(other, train)
    right = [(place, 10 * place) for place in range(30)]
    assert len(set(found) & set(right)) >= 28
    assert not set(found) - set(right)


def test_identical_and_flat_images_are_no_near_copies() -> None:
    flat = [np.full((40, 40, 3), level, np.uint8) for level in (10, 20, 30)]
    train = pack([*(photo(seed) for seed in range(20)), *flat])
    assert find_near_copies(train, train) == []


def test_near_copies_are_named(tmp_path: Path) -> None:
    from mnist_exp.data import folder

    for place, name in enumerate(["train", "test"]):
        for label in ("a", "b"):
            (tmp_path / name / label).mkdir(parents=True)
            for seed in range(10):
                path = tmp_path / name / label / f"{seed}.png"
                photo(seed + 100 * (label == "b") + (1000 * place if seed else 0)).save(path)
    Image.fromarray(saved_again(photo(0))).save(tmp_path / "test/a/0.png")
    photo(5000).save(tmp_path / "test/b/0.png")
    keys = {"validation": 0.2, "method": "stratified", "test": 0.2, "limit": None, "seed": 0, "folds": 2}
    notes = split(folder(str(tmp_path)), Split.model_construct(name="mine", **keys)).notes
    assert notes == (
        "1 test images are near copies of training images, such as test/a/0.png of train/a/0.png: "
        "remove them, or name what they share with dataset.group",
    )
