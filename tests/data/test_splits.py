from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from mnist_exp.config.schema import Split
from mnist_exp.data.dataset import Dataset, ImageSet, check_arrays
from mnist_exp.data.splits import Splits, split
from mnist_exp.errors import DataError

NAMES = ("cat", "dog", "owl")


def part(ids: range, labels: list[int] | None = None) -> ImageSet:
    """Images that hold their own number, of classes 0, 1, 2 in turn."""
    pixels = np.array([[[number // 256, number % 256]] for number in ids], dtype=np.uint8)
    return check_arrays(pixels, np.array([number % 3 for number in ids] if labels is None else labels), "")


def ids(part: ImageSet) -> list[int]:
    return [int(high) * 256 + int(low) for high, low in part.images.reshape(-1, 2)]


def source(train: ImageSet, test: ImageSet | None = None, names: tuple[str, ...] = NAMES) -> Dataset:
    return Dataset(train, test, names, "mine.npz, some images")


def cut(data: Dataset, **changes: Any) -> Splits:
    keys = {"validation": 0.2, "method": "stratified", "test": 0.2, "limit": None, "seed": 0, "folds": None}
    return split(data, Split.model_construct(name="mine", **{**keys, **changes}))


def sizes(splits: Splits) -> tuple[int, ...]:
    return tuple(len(part) for part in splits.parts.values())


@pytest.mark.parametrize(
    ("validation", "test", "expected"),
    [(0.25, 0.2, (180, 60, 60)), (60, 60, (180, 60, 60)), (1, 1, (298, 1, 1)), (0.5, 240, (30, 30, 240))],
)
def test_fractions_and_counts(validation: float, test: float, expected: tuple[int, ...]) -> None:
    assert sizes(cut(source(part(range(300))), validation=validation, test=test)) == expected


@pytest.mark.parametrize("method", ["tail", "stratified"])
@pytest.mark.parametrize(
    ("own_test", "limit", "used"),
    [(True, None, 400), (True, 1000, 400), (True, 80, 160), (False, None, 300), (False, 1000, 300), (False, 80, 140)],
)
def test_an_image_stands_in_one_split_with_its_label(method: str, own_test: bool, limit: int | None, used: int) -> None:
    splits = cut(source(part(range(300)), part(range(300, 400)) if own_test else None), method=method, limit=limit)
    found = [number for piece in splits.parts.values() for number in ids(piece)]
    assert len(found) == len(set(found)) == used
    for piece in splits.parts.values():
        assert piece.labels.tolist() == [number % 3 for number in ids(piece)]
    assert splits.repeated == {}
    assert splits.image_shape == (1, 2, 1)


def test_a_test_set_of_its_own_is_left_whole() -> None:
    splits = cut(source(part(range(300)), part(range(300, 400))))
    assert ids(splits.test) == list(range(300, 400))
    assert sizes(splits) == (240, 60, 100)


def test_tail_takes_the_last_images() -> None:
    splits = cut(source(part(range(50)), part(range(50, 60))), method="tail")
    assert ids(splits.train) == list(range(40))
    assert ids(splits.validation) == list(range(40, 50))


def test_stratified_splits_keep_the_proportions_of_the_classes() -> None:
    labels = [0] * 200 + [1] * 80 + [2] * 20
    splits = cut(source(part(range(300), labels)), validation=0.25, test=0.2)
    assert np.bincount(splits.test.labels).tolist() == [40, 16, 4]
    assert np.bincount(splits.validation.labels).tolist() == [40, 16, 4]


def test_stratified_splits_follow_the_seed() -> None:
    first, again, other = (cut(source(part(range(300))), seed=seed) for seed in (0, 0, 1))
    for name, piece in first.parts.items():
        assert ids(piece) == ids(again.parts[name])
        assert ids(piece) != ids(other.parts[name])
    assert first.digest == again.digest == other.digest


def test_limit_bounds_training_and_test_in_proportion() -> None:
    splits = cut(source(part(range(300)), part(range(300, 400))), limit=30)
    assert sizes(splits) == (24, 6, 30)
    assert np.bincount(splits.test.labels).tolist() == [10, 10, 10]


def test_a_class_of_one_image_is_no_obstacle() -> None:
    splits = cut(source(part(range(30), [0] * 20 + [1] * 9 + [2])), validation=2, test=2)
    assert sizes(splits) == (26, 2, 2)


@pytest.mark.parametrize("method", ["tail", "stratified"])
@pytest.mark.parametrize("limit", [None, 200])
def test_copies_of_test_images_are_taken_out_and_counted(method: str, limit: int | None) -> None:
    data = source(part(range(100)), part(range(90, 120)))
    splits = cut(data, method=method, limit=limit)
    assert sizes(splits) == (72, 18, 30)
    assert not set(ids(splits.test)) & set(ids(splits.train) + ids(splits.validation))
    assert splits.repeated == {"test and train or validation, taken out of those": 10}


def test_copies_of_images_drawn_for_test_are_taken_out_as_well() -> None:
    numbers = [*range(100), *range(50)]
    twice = part(range(100))[np.array(numbers)]
    splits = cut(source(twice), test=30)
    assert not set(ids(splits.test)) & set(ids(splits.train) + ids(splits.validation))
    (count,) = [number for name, number in splits.repeated.items() if "test" in name]
    assert sum(sizes(splits)) == 150 - count


def test_copies_between_train_and_validation_are_counted_only() -> None:
    tail_repeats_head = part(range(40))[np.array([*range(40), *range(5)])]
    splits = cut(source(tail_repeats_head, part(range(40, 50))), method="tail", validation=10)
    assert sizes(splits) == (35, 10, 10)
    assert splits.repeated == {"train and validation": 5}


def test_training_images_that_are_all_test_images_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"mine.npz.*training images must not all be in the test set, but all 10 are; remove them"
    ):
        cut(source(part(range(10)), part(range(20))))


def test_identical_images_of_two_classes_are_named() -> None:
    labels = [number % 3 for number in range(30)]
    train = part(range(30), labels)
    train.images[4], train.images[16], train.images[5] = train.images[1], train.images[1], train.images[1]
    note = "4 identical images have different classes, such as dog and owl: correct or remove them"
    assert cut(source(train, part(range(30, 40)))).notes[0] == note
    named = replace(train, names=np.array([f"{number}.png" for number in range(30)]))
    note = "4 identical images have different classes, such as 1.png (dog) and 5.png (owl): correct or remove them"
    assert cut(source(named)).notes[0] == note


def test_an_image_with_another_class_in_the_test_set_is_named() -> None:
    test = part(range(29, 40), [0, *[number % 3 for number in range(30, 40)]])
    notes = cut(source(part(range(30)), test)).notes
    assert notes[0].startswith("2 identical images have different classes, such as owl and cat")


@pytest.mark.parametrize("folds", [None, 4])
def test_copies_of_test_images_in_a_validation_set_are_taken_out_and_counted(folds: int | None) -> None:
    data = replace(source(part(range(40)), part(range(60, 80))), validation=part(range(35, 65)))
    splits = cut(data, folds=folds)
    assert not set(ids(splits.train) + ids(splits.validation)) & set(ids(splits.test))
    assert splits.repeated["test and train or validation, taken out of those"] == 5
    assert len(splits.validation) == (65 if folds else 25)


def test_validation_images_that_are_all_test_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"validation images must not all be in the test set, but all 20 are"):
        cut(replace(source(part(range(40)), part(range(60, 80))), validation=part(range(60, 80))))


@pytest.mark.parametrize("part_name", ["validation", "test"])
@pytest.mark.parametrize(
    ("value", "taken"), [(1.0, 30), (30, 30), (31, 31), (1.5, 45), (0.01, 0), (0, 0), (0.99, 30), (-1, -1)]
)
def test_a_part_that_leaves_nothing_is_refused(part_name: str, value: float, taken: int) -> None:
    data = source(part(range(30)), part(range(30, 40)) if part_name == "validation" else None)
    rule = f"dataset.{part_name} must leave images on both sides, but got {value}; {value} of 30 takes {taken}: "
    with pytest.raises(DataError) as caught:
        cut(data, **{part_name: value})
    assert str(caught.value) == rule + "give a count from 1 to 29, or a fraction"


def test_a_limit_of_one_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"dataset.validation must leave .*; 0.2 of 1 takes 0: use more images"):
        cut(source(part(range(30)), part(range(30, 40))), limit=1)


@pytest.mark.parametrize(
    ("train", "test", "names", "message"),
    [
        ([0, 1, 3], None, NAMES, r"train labels must lie in 0 to 2 for 3 classes, but got 3; renumber"),
        ([0, 1, -1], None, NAMES, r"train labels must lie in 0 to 2 for 3 classes, but got -1; renumber"),
        (
            [0, 1, 2],
            None,
            NAMES[:2],
            r"train labels must lie in 0 to 1 .* but got 2; .* every class in dataset.class_names",
        ),
        ([0, 1, 1], [0, 1, 3], NAMES, r"test labels must lie in 0 to 2 for 3 classes, but got 3; renumber"),
        (
            [1, 1, 1],
            None,
            NAMES,
            r"must be of at least 2 classes, but got \['dog'\]; add images of another class",
        ),
        ([0, 0, 0], None, ("cat",), r"class names must name at least 2 classes, but got \['cat'\]; add a class"),
        ([0, 1, 1], None, (), r"class names must name at least 2 classes, but got \[\]; add a class"),
        ([0, 1, 1], None, ("cat", "cat"), r"class names must differ, but got \['cat', 'cat'\]; rename one"),
    ],
)
def test_labels_that_fit_no_classifier_are_refused(
    train: list[int], test: list[int] | None, names: tuple[str, ...], message: str
) -> None:
    data = source(part(range(3), train), part(range(3, 6), test) if test else None, names)
    with pytest.raises(DataError, match=rf"mine\.npz, some images: .*{message}"):
        cut(data)


@pytest.mark.parametrize("name", ["test", "validation"])
@pytest.mark.parametrize(("shape", "received"), [((2, 3, 3), r"3, 3, 1"), ((2, 1, 2, 3), r"1, 2, 3")])
def test_images_of_another_shape_are_refused(name: str, shape: tuple[int, ...], received: str) -> None:
    other = check_arrays(np.zeros(shape, np.uint8), np.array([0, 1]), "")
    rule = rf"mine.npz.*: {name} images must have the shape of the training images, \(1, 2, 1\), "
    with pytest.raises(DataError, match=rf"{rule}but got \({received}\); resize them alike"):
        cut(replace(source(part(range(30)), part(range(30, 40))), **{name: other}))


def test_a_validation_set_with_a_class_that_is_never_trained_is_refused() -> None:
    data = replace(source(part(range(20), [0, 1] * 10)), validation=part(range(100, 106)))
    with pytest.raises(DataError) as refused:
        cut(data)
    assert str(refused.value) == (
        "mine.npz, some images: training images must be of every class of the validation set, but none is of 'owl'; "
        "add images of this class, or remove it from the validation set"
    )


def test_the_digest_tells_of_content_alone() -> None:
    data = source(part(range(30)), part(range(30, 40)))
    changes: list[dict[str, Any]] = [{}, {"validation": 3}, {"method": "tail"}, {"limit": 20}, {"seed": 7}]
    digests = {cut(data, **change).digest for change in changes}
    # Written down so that runs of today and of next year can be told to have had the same data.
    assert digests == {"bc6ffbc59d9d4bbb9137d266d974c659fa886749479c6b5608c898bd3c55fe7e"}


@pytest.mark.parametrize("changed", ["pixel", "label", "test pixel", "test label", "names", "order", "no test"])
def test_the_digest_changes_with_the_content(changed: str) -> None:
    def built(changed: str) -> Dataset:
        train, test, names = part(range(30)), part(range(30, 40)), NAMES
        half = test if changed.startswith("test") else train
        if changed.endswith("pixel"):
            half.images[4, 0, 0, 0] ^= 1
        if changed.endswith("label"):
            half.labels[4] = (half.labels[4] + 1) % 3
        if changed == "order":
            train = train[np.arange(30)[::-1]]
        return source(
            train, None if changed == "no test" else test, ("cat", "dog", "ox") if changed == "names" else names
        )

    assert cut(built(changed)).digest != cut(built("")).digest


@pytest.mark.parametrize("changed", ["no validation", "pixel", "label", "group", "no groups"])
def test_the_digest_changes_with_an_own_validation_set_and_groups(changed: str) -> None:
    def built(changed: str) -> Dataset:
        own, groups = part(range(40, 50)), np.arange(30) // 2
        own.images[4, 0, 0, 0] ^= changed == "pixel"
        own.labels[4] = (own.labels[4] + (changed == "label")) % 3
        groups[29] += changed == "group"
        train = replace(part(range(30)), groups=None if changed == "no groups" else groups)
        return replace(source(train, part(range(30, 40))), validation=None if changed == "no validation" else own)

    assert cut(built(changed)).digest != cut(built("")).digest


def test_a_class_whose_only_image_is_drawn_for_the_test_set_is_refused() -> None:
    lonely = source(part(range(4), [0, 1, 1, 1]))
    drawn = next(seed for seed in range(20) if train_test_split(range(4), test_size=1, random_state=seed)[1] == [0])
    with pytest.raises(DataError, match=r"dataset\.test must leave training images of 'cat' .* but got 1; add images"):
        cut(lonely, test=1, validation=1, method="tail", seed=drawn)


def test_a_test_set_with_a_class_that_is_never_trained_is_refused() -> None:
    with pytest.raises(DataError) as refused:
        cut(source(part(range(20), [0, 1] * 10), part(range(100, 106))))
    assert str(refused.value) == (
        "mine.npz, some images: training images must be of every class of the test set, but none is of 'owl'; "
        "add images of this class, or remove it from the test set"
    )
