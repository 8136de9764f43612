"""Arrays, pipelines and whatever else a function of the user's own returns."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mnist_exp.data import Dataset, given
from mnist_exp.data.arrays import to_dataset
from mnist_exp.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 5), dtype=np.uint8)
LABELS = np.arange(12) % 3


def read(made: Any) -> Dataset:
    return to_dataset(made, "mine")


def test_a_pair_of_arrays() -> None:
    data = read((IMAGES, LABELS))
    assert np.array_equal(data.train.images[..., 0], IMAGES)
    assert np.array_equal(data.train.labels, LABELS)
    assert (data.class_names, data.test, data.notes) == (("0", "1", "2"), None, ())


def test_training_and_test() -> None:
    data = read(((IMAGES[:8], LABELS[:8]), (IMAGES[8:], LABELS[8:])))
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (8, 4)


def test_arrays_by_name() -> None:
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_val": IMAGES[:5], "y_val": LABELS[:5]}
    data = read(arrays)
    assert data.validation is not None
    assert (len(data.train), len(data.validation), data.test) == (12, 5, None)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.eye(3)[LABELS], ("0", "1", "2")),
        (LABELS[:, None], ("0", "1", "2")),
        (LABELS.astype(float), ("0", "1", "2")),
        (LABELS * 10, ("0", "10", "20")),
        (np.array(["b", "a", "c"])[LABELS], ("a", "b", "c")),
        (np.array([b"b", b"a", b"c"])[LABELS], ("a", "b", "c")),
        (LABELS.tolist(), ("0", "1", "2")),
    ],
    ids=["one-hot", "column", "float", "gaps", "names", "bytes", "list"],
)
def test_labels_of_any_kind(labels: Any, names: tuple[str, ...]) -> None:
    data = read((IMAGES, labels))
    assert data.class_names == names
    assert [data.class_names[label] for label in data.train.labels[:3]] == [
        str(one) for one in (np.array(["b", "a", "c"]) if names[0] == "a" else np.array([int(n) for n in names]))
    ]


@pytest.mark.parametrize(
    ("images", "note"),
    [
        (IMAGES / 255, "numbers from 0 to 1 became whole numbers from 0 to 255"),
        (IMAGES.astype(np.float32), "numbers from 0 to 255 became whole numbers"),
        (IMAGES.astype(np.int64), None),
    ],
)
def test_numbers_of_any_type_become_bytes(images: np.ndarray, note: str | None) -> None:
    data = read((images, LABELS))
    assert np.array_equal(data.train.images[..., 0], IMAGES)
    assert (note is None and data.notes == ()) or (note is not None and data.notes[0].startswith(note))


def test_true_and_false() -> None:
    data = read((IMAGES > 100, LABELS))
    assert set(np.unique(data.train.images)) == {0, 255}
    assert data.notes == ("true and false became 255 and 0",)


@pytest.mark.parametrize("batch", [None, 5])
def test_a_pipeline_is_read_once(batch: int | None) -> None:
    import tensorflow as tf

    pipeline = tf.data.Dataset.from_tensor_slices((IMAGES[..., None], LABELS))
    data = read(pipeline if batch is None else pipeline.batch(batch))
    assert np.array_equal(data.train.images[..., 0], IMAGES)
    assert np.array_equal(data.train.labels, LABELS)


def test_a_pipeline_of_grey_images_without_channels_in_batches() -> None:
    import tensorflow as tf

    data = read(tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4))
    assert np.array_equal(data.train.images[..., 0], IMAGES)


def test_a_pair_of_pipelines() -> None:
    import tensorflow as tf

    first, second = (
        tf.data.Dataset.from_tensor_slices((IMAGES[part], LABELS[part])) for part in (slice(8), slice(8, 12))
    )
    data = read((first.batch(3), second.batch(3)))
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (8, 4)


def test_a_square_of_the_length_of_its_one_hot_label_is_one_image() -> None:
    data = read([(IMAGES[place, :, :4, None], np.eye(4, dtype=int)[place % 3]) for place in range(12)])
    assert data.train.images.shape == (12, 4, 4, 1)
    assert np.array_equal(data.train.labels, LABELS)


def test_a_pipeline_that_repeats_for_ever_is_refused() -> None:
    import tensorflow as tf

    with pytest.raises(DataError, match=r"mine \(train\) must end, but repeats for ever; remove .repeat\(\)"):
        read(tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).repeat())


def test_a_generator_that_never_ends_is_refused_before_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=20_000))
    with pytest.raises(DataError, match=r"must fit into memory: [0-9,]+ images of 4x5x1"):
        read((image, 0) for image in itertools.cycle(IMAGES))


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: None, "mine must return images and labels, but got 'NoneType'"),
    "images alone": (lambda: IMAGES, "mine must return images and labels, but got 'ndarray'"),
    "one image": (
        lambda: (IMAGES[0], 3),
        "must hold several images and a label for each, but got 'shapes (4, 5) and ()'",
    ),
    "no test labels": (
        lambda: {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES},
        "mine must hold x_test and y_test, or neither, but got ['x_test', 'x_train', 'y_train']; add y_test",
    ),
    "other names": (lambda: {"images": IMAGES}, "mine must hold x_train and y_train, but got ['images']"),
    "counts": (lambda: (IMAGES, LABELS[:5]), "must hold one label per image, but got '12 images and 5 labels'"),
    "below zero": (lambda: (IMAGES - 200.0, LABELS), "must be from 0 to 1 or from 0 to 255, but got"),
    "not finite": (lambda: (IMAGES / 0.0, LABELS), "must be finite numbers"),
    "words": (lambda: (IMAGES.astype(str), LABELS), "must be numbers"),
    "flat": (lambda: (IMAGES.reshape(12, -1), LABELS), "must have the shape (n, height, width)"),
    "two labels": (lambda: (IMAGES, np.ones((12, 3))), "must be one-hot, or one per image"),
    "empty": (lambda: (IMAGES[:0], LABELS[:0]), "must"),
    "sizes": (lambda: [(IMAGES[0], 0), (IMAGES[0, :2], 1), (IMAGES[1], 1)], "must all have one shape"),
    "no pairs": (lambda: [IMAGES[0], IMAGES[1], IMAGES[2]], "must yield pairs of an image and its label"),
    "missing label": (lambda: (IMAGES, np.array([None, *"abcdefghijk"], object)), "must not be empty"),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("case", CASES)
def test_what_is_no_data_set_is_answered(case: str) -> None:
    made, line = CASES[case]
    with pytest.raises(DataError) as refused:
        read(made())
    assert line in str(refused.value)


def test_data_given_in_python_are_not_kept() -> None:
    with pytest.raises(DataError, match=r"were given in Python, as mnist_exp.run\(data=\(images, labels\)\)"):
        given()
