"""From labelled images to the three splits of a run."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from mnist_exp.config.schema import Count, FractionOrCount, Seed
from mnist_exp.data.dataset import Part, Preparation, Source
from mnist_exp.errors import DataError


@dataclass(frozen=True)
class Splits:
    """The three splits of a run; a trial of a sweep is given no test set, so that it cannot look at it.

    digest: SHA-256 of all pixels, labels and class names as found, before any split.
    repeated: images that stand in two splits, such as {"train and validation": 3}; copies of test images are taken out
    of train and validation, and counted here all the same.
    """

    name: str
    train: Part
    validation: Part
    test: Part | None
    class_names: tuple[str, ...]
    description: str
    digest: str
    repeated: dict[str, int] = field(default_factory=dict)
    preparation: Preparation = "resize"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """height, width, channels"""
        _, height, width, channels = self.train.images.shape
        return height, width, channels

    @cached_property
    def validation_digest(self) -> str:
        """Of the validation images in any order: runs that share it may be compared by what they say of those."""
        return hashlib.sha256(b"".join(sorted(self.validation.digests))).hexdigest()

    @property
    def parts(self) -> dict[str, Part]:
        """The splits by name."""
        test = {} if self.test is None else {"test": self.test}
        return {"train": self.train, "validation": self.validation, **test}

    @property
    def scored(self) -> dict[str, Part]:
        """What is evaluated, as metrics name it: `val`, and `test` where there is one."""
        return {"val": self.validation} if self.test is None else {"val": self.validation, "test": self.test}


def split(
    source: Source,
    *,
    name: str,
    validation: FractionOrCount,
    method: Literal["tail", "stratified"],
    test: FractionOrCount,
    limit: Count | None,
    seed: Seed,
) -> Splits:
    """Cuts a source into train, validation and test; the same seed gives the same splits.

    validation, test: a fraction or a count; `test` only where the source has no test set. method: `tail` takes the last
    images for validation, `stratified` draws each class in proportion. limit: keeps at most so many training and test
    images; a count of validation images that no longer fits shrinks with them. Raises DataError where a split would be
    empty, or training would miss a class.
    """
    classes = len(source.class_names)
    _check_labels(source, classes)
    digest = _digest(source)
    train, tested = source.train, source.test
    if tested is None:
        rest, chosen = _stratified(train.labels, _count("test", test, len(train)), seed)
        train, tested = train[rest], train[chosen]
    if limit is not None:
        if isinstance(validation, int) and limit <= validation < len(train):
            validation = validation / len(train)
        train, tested = sample(train, limit, seed), sample(tested, limit, seed)
    train, repeated = _without_copies(train, tested, source.description)
    wanted = _count("validation", validation, len(train))
    if method == "tail":
        rest, chosen = np.split(np.arange(len(train)), [len(train) - wanted])
    else:
        rest, chosen = _stratified(train.labels, wanted, seed)
    train, validated = train[rest], train[chosen]
    if missed := sorted(set(validated.labels.tolist()) - set(train.labels.tolist())):
        raise DataError(
            f"{source.description}: validation took every training image of {source.class_names[missed[0]]!r}, "
            f"dataset.method was {method}; use stratified, or fewer validation images"
        )
    if count := int(np.isin(validated.digests, train.digests).sum()):
        repeated["train and validation"] = count
    return Splits(
        name, train, validated, tested, source.class_names, source.description, digest, repeated, source.preparation
    )


def sample(part: Part, count: int, seed: int) -> Part:
    """At most `count` images, each class in proportion, in the order they had."""
    if count >= len(part):
        return part
    _, chosen = _stratified(part.labels, count, seed)
    return part[chosen]


def _without_copies(train: Part, tested: Part, description: str) -> tuple[Part, dict[str, int]]:
    """The training images that are not in the test set, and how many were."""
    copies = np.isin(train.digests, tested.digests)
    if not copies.any():
        return train, {}
    if copies.all():
        raise DataError(
            f"{description}: training needs images that are not in the test set, but all {len(copies)} are; "
            "take them out of the test set, or give another"
        )
    return train[np.flatnonzero(~copies)], {"test and train or validation, taken out of those": int(copies.sum())}


def _check_labels(source: Source, classes: int) -> None:
    if classes < 2:
        raise DataError(
            f"{source.description}: a classifier needs at least 2 classes, but got {list(source.class_names)}; add one"
        )
    if len(set(source.class_names)) < classes:
        raise DataError(
            f"{source.description}: class names must differ, but got {list(source.class_names)}; rename one"
        )
    for name, part in (("train", source.train), ("test", source.test)):
        if part is None:
            continue
        outside = part.labels[(part.labels < 0) | (part.labels >= classes)]
        if len(outside):
            raise DataError(
                f"{source.description}: {name} labels must lie in 0 to {classes - 1} for {classes} classes, "
                f"but got {outside[0]}; renumber the labels, or name every class in dataset.class_names"
            )
        if part.images.shape[1:] != source.train.images.shape[1:]:
            raise DataError(
                f"{source.description}: train and test images must have one shape, but got "
                f"{source.train.images.shape[1:]} and {part.images.shape[1:]}; resize them alike"
            )
    if len(np.unique(source.train.labels)) < 2:
        raise DataError(
            f"{source.description}: training images of at least 2 classes are needed, but all are "
            f"{source.class_names[int(source.train.labels[0])]!r}; add images of another class"
        )


def _digest(source: Source) -> str:
    sha = hashlib.sha256("\0".join(source.class_names).encode())
    for part in (source.train, source.test):
        if part is not None:
            sha.update(str(part.images.shape).encode())
            sha.update(np.ascontiguousarray(part.images).data)
            sha.update(np.ascontiguousarray(part.labels).data)
    return sha.hexdigest()


def _count(name: str, part: float | int, total: int) -> int:
    count = part if isinstance(part, int) else round(part * total)
    if not 0 < count < total:
        remedy = f"give a count from 1 to {total - 1}, or such a fraction" if total > 1 else "take more images"
        raise DataError(
            f"dataset.{name} must leave images on both sides, but {part} of {total} takes {count}; {remedy}"
        )
    return count


def _stratified(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sorted index arrays, the rest and the chosen `count`, each class in proportion."""
    from sklearn.model_selection import train_test_split

    sizes = np.bincount(labels)
    stratify: Sequence[int] | np.ndarray | None = labels
    classes = np.count_nonzero(sizes)
    if sizes[sizes > 0].min() < 2 or min(count, len(labels) - count) < classes:
        stratify = None  # too few to give every class a share: drawn from all alike
    rest, chosen = train_test_split(np.arange(len(labels)), test_size=count, random_state=seed, stratify=stratify)
    return np.sort(rest), np.sort(chosen)
