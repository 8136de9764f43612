"""Makes a data set of what a user's own function returns: arrays, a pipeline of tf.data, or a data set."""

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from mnist_exp.data.dataset import Dataset, ImageSet, check_arrays
from mnist_exp.data.decode import check_memory
from mnist_exp.data.numbers import to_bytes
from mnist_exp.data.tables import number_labels
from mnist_exp.errors import DataError, Problem

SHAPES = (
    "(images, labels), ((images, labels), (images, labels)) for training and test, or x_train, y_train, ... by name"
)
# What the config of a run says whose images were given in Python.
GIVEN = ("dataset=arrays", "dataset._target_=mnist_exp.data.given", "dataset.name=given")
INFINITE = -1  # tf.data.INFINITE_CARDINALITY
NAMES = {"train": ("x_train", "y_train"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")}


def given() -> NoReturn:
    """Stands in the config of a run whose images were given to `mnist_exp.run(data=...)`."""
    rule = "were given in Python, as mnist_exp.run(data=(images, labels)), and are not kept"
    raise DataError(Problem("the images of this run", rule, remedy="call it with the data"))


def to_dataset(made: Any, where: str) -> Dataset:
    """Returns a data set of whatever holds images and labels.

    made: a data set; a pair of images and labels; two such pairs, the second for the test; such arrays by name; or an
    iterable of pairs of one image, or one batch, with its labels, such as a tf.data pipeline, which is read once.
    Images may be numbers of any type: from 0 to 1, or from 0 to 255. Labels may be numbers, names or one-hot. Raises
    DataError for anything else.
    """
    if isinstance(made, Dataset):
        return made
    notes: list[str] = []
    parts = {split: _read(pair, f"{where} ({split})", notes) for split, pair in _pairs(made, where).items()}
    numbers, names = number_labels(np.concatenate([labels for _, labels in parts.values()]), where)
    starts = np.cumsum([0, *(len(labels) for _, labels in parts.values())])
    sets: dict[str, ImageSet] = {}
    for place, (split, (images, _)) in enumerate(parts.items()):
        sets[split] = check_arrays(images, numbers[starts[place] : starts[place + 1]], f"{where} ({split})")
    total = sum(map(len, sets.values()))
    return Dataset(
        sets["train"], sets.get("test"), names, f"{where}, {total:,} images",
        validation=sets.get("validation"), notes=tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _pairs(made: Any, where: str) -> dict[str, Any]:
    """The images and labels by split."""
    if isinstance(made, Mapping):
        for x, y in NAMES.values():
            if (x in made) != (y in made):
                rule = f"must hold {x} and {y}, or neither"
                raise DataError(Problem(where, rule, sorted(map(str, made)), f"add {y if x in made else x}"))
        found = {split: (made[x], made[y]) for split, (x, y) in NAMES.items() if x in made}
        if "train" in found:
            return found
        raise DataError(Problem(where, "must hold x_train and y_train", sorted(map(str, made)), f"return {SHAPES}"))
    if isinstance(made, tuple | list) and len(made) == 2:
        return dict(zip(("train", "test"), made, strict=True)) if all(map(_is_part, made)) else {"train": made}
    if isinstance(made, Iterable) and not isinstance(made, str | bytes | np.ndarray):
        return {"train": made}
    raise DataError(Problem(where, "must return images and labels", type(made).__name__, f"return {SHAPES}"))


def _is_part(half: Any) -> bool:
    """Whether this holds images and labels, and is not one of them: a pair, or a pipeline."""
    is_pair = isinstance(half, tuple | list) and len(half) == 2
    return is_pair or not (isinstance(half, tuple | list) or hasattr(half, "__array__"))


def _read(pair: Any, where: str, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(pair, tuple | list) and len(pair) == 2:
        images, labels = (np.asarray(one) for one in pair)
    else:
        images, labels = _collect(pair, where)
    if images.ndim < 2 or labels.ndim == 0:
        found = f"shapes {images.shape} and {labels.shape}"
        raise DataError(Problem(where, "must hold several images and a label for each", found, f"return {SHAPES}"))
    if len(images) != len(labels):
        found = f"{len(images):,} images and {len(labels):,} labels"
        raise DataError(Problem(where, "must hold one label per image", found, "take both from the same selection"))
    if labels.ndim == 2 and labels.shape[1] > 1:
        if not ((labels.sum(axis=1) == 1).all() and np.isin(labels, (0, 1)).all()):
            raise DataError(Problem(f"{where}: labels", "must be one-hot, or one per image", labels.shape))
        labels = labels.argmax(axis=1)
    if labels.ndim > 2:
        raise DataError(Problem(f"{where}: labels", "must be one-hot, or one per image", labels.shape))
    return to_bytes(images, where, notes), labels.reshape(len(labels))


def _collect(pipeline: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads pairs of one image, or one batch, with its labels."""
    size = int(getattr(pipeline, "cardinality", lambda: 0)())
    if size == INFINITE:
        raise DataError(Problem(where, "must end, but repeats for ever", remedy="remove .repeat() from the pipeline"))
    images, labels = list[np.ndarray](), list[np.ndarray]()
    checked = 0  # images that were found to fit into memory; not every pipeline tells how many it yields
    for element in pipeline:
        if not (isinstance(element, tuple | list) and len(element) == 2):
            raise DataError(Problem(where, "must yield pairs of an image and its label", type(element).__name__))
        image, label = (np.asarray(one) for one in element)
        images += list(image) if (batched := _is_batch(image, label)) else [image]
        labels += list(label) if batched else [label]
        if len(images) > 2 * checked:
            expected = 0 if checked else size * len(images)  # as many elements as this one
            check_memory(max(expected, len(images)), (*images[-1].shape, 1, 1, 1)[:3], where)
            checked = len(images)
    if not images:
        raise DataError(Problem(where, "must yield images", "none"))
    if len({image.shape for image in images}) > 1:
        shapes = sorted({image.shape for image in images})[:3]
        raise DataError(Problem(f"{where}: images", "must all have one shape", shapes, "resize them in the pipeline"))
    return np.stack(images), np.stack(labels)


def _is_batch(image: np.ndarray, label: np.ndarray) -> bool:
    """Whether these are several images with their labels, and not one, perhaps with a one-hot label."""
    if label.ndim == 0 or image.ndim < 3 or len(image) != len(label):
        return False
    if image.ndim == 3 and image.shape[-1] in (1, 3):  # a last axis of 1 or 3 holds the channels of one image
        return False
    return image.ndim > 3 or label.ndim > 1 or label.dtype.kind != "f"
