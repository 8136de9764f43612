"""Splits a data set into train, validation and test."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mnist_exp.config.schema import Split
from mnist_exp.data.dataset import Dataset, ImageSet, Preparation
from mnist_exp.errors import DataError, Problem


@dataclass(frozen=True)
class Splits:
    """The three splits of a run. A trial of a sweep has no test set, so that it cannot use it.

    digest: SHA-256 of all pixels, labels and class names before splitting. repeated: the number of images that are in
    two splits, such as {"train and validation": 3}. Copies of test images are removed from train and validation, but
    counted here.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet | None
    class_names: tuple[str, ...]
    description: str
    digest: str
    repeated: dict[str, int] = field(default_factory=dict)
    preparation: Preparation = "resize"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """height, width and channels of an image."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels

    @cached_property
    def validation_digest(self) -> str:
        """A digest of the validation images in any order. Scores of runs that share it can be compared."""
        return hashlib.sha256(b"".join(sorted(self.validation.digests))).hexdigest()

    @property
    def parts(self) -> dict[str, ImageSet]:
        """The splits by name."""
        test = {} if self.test is None else {"test": self.test}
        return {"train": self.train, "validation": self.validation, **test}

    @property
    def scored(self) -> dict[str, ImageSet]:
        """The splits that are evaluated, by their names in metrics: `val`, and `test` if there is one."""
        return {"val": self.validation} if self.test is None else {"val": self.validation, "test": self.test}


def split(dataset: Dataset, settings: Split) -> Splits:
    """Splits a data set into train, validation and test. The same seed gives the same splits.

    validation, test: a fraction or a count; `test` is used only if the data set has no test set. method: `tail` takes
    the last images for validation, `stratified` draws from each class in proportion. limit: the largest number of
    training and of test images; a count of validation images that no longer fits shrinks with them. Raises DataError
    if a split would be empty or a class would have no training image.
    """
    _check_classes(dataset)
    train, tested = dataset.train, dataset.test
    validation, limit, seed = settings.validation, settings.limit, settings.seed
    if tested is None:
        rest, chosen = _draw(train.labels, _count("test", settings.test, len(train)), seed)
        train, tested = train[rest], train[chosen]
    if limit is not None:
        if isinstance(validation, int) and limit <= validation < len(train):
            validation = validation / len(train)
        train, tested = sample(train, limit, seed), sample(tested, limit, seed)
    train, repeated = _remove_copies(train, tested, dataset.description)
    wanted = _count("validation", validation, len(train))
    if settings.method == "tail":
        rest, chosen = np.split(np.arange(len(train)), [len(train) - wanted])
    else:
        rest, chosen = _draw(train.labels, wanted, seed)
    train, validated = train[rest], train[chosen]
    _check_training(dataset, settings, train, validated, tested)
    if count := int(np.isin(validated.digests, train.digests).sum()):
        repeated["train and validation"] = count
    return Splits(
        name=settings.name, train=train, validation=validated, test=tested, class_names=dataset.class_names,
        description=dataset.description, digest=_digest(dataset), repeated=repeated, preparation=dataset.preparation,
    )  # fmt: skip


def sample(images: ImageSet, count: int, seed: int) -> ImageSet:
    """Draws at most `count` images, from each class in proportion. They keep their order."""
    if count >= len(images):
        return images
    _, chosen = _draw(images.labels, count, seed)
    return images[chosen]


def _remove_copies(train: ImageSet, tested: ImageSet, description: str) -> tuple[ImageSet, dict[str, int]]:
    """Returns the training images that are not in the test set, and the number of the others."""
    copies = np.isin(train.digests, tested.digests)
    if not copies.any():
        return train, {}
    if copies.all():
        rule = f"must not all be in the test set, but all {len(copies)} are"
        remedy = "remove them from the test set, or use another test set"
        raise DataError(Problem(f"{description}: training images", rule, remedy=remedy))
    return train[np.flatnonzero(~copies)], {"test and train or validation, taken out of those": int(copies.sum())}


def _check_classes(dataset: Dataset) -> None:
    """Raises DataError if class names, labels or image shapes do not fit a classifier."""
    names, where = list(dataset.class_names), dataset.description
    if len(names) < 2:
        raise DataError(Problem(f"{where}: class names", "must name at least 2 classes", names, "add a class"))
    if len(set(names)) < len(names):
        raise DataError(Problem(f"{where}: class names", "must differ", names, "rename one"))
    shape = dataset.train.images.shape[1:]
    for split_name, part in (("train", dataset.train), ("test", dataset.test)):
        if part is None:
            continue
        outside = part.labels[(part.labels < 0) | (part.labels >= len(names))]
        if len(outside):
            rule = f"must lie in 0 to {len(names) - 1} for {len(names)} classes"
            remedy = "renumber the labels, or name every class in dataset.class_names"
            raise DataError(Problem(f"{where}: {split_name} labels", rule, int(outside[0]), remedy))
        if part.images.shape[1:] != shape:
            rule = f"must have the shape of the training images, {shape}"
            raise DataError(Problem(f"{where}: {split_name} images", rule, part.images.shape[1:], "resize them alike"))
    found = [names[label] for label in np.unique(dataset.train.labels)]
    if len(found) < 2:
        rule = "must be of at least 2 classes"
        raise DataError(Problem(f"{where}: training images", rule, found, "add images of another class"))


def _check_training(dataset: Dataset, settings: Split, train: ImageSet, validated: ImageSet, tested: ImageSet) -> None:
    """Raises DataError if the validation or the test set has a class that no training image has."""
    for part in (validated, tested):
        missed = np.setdiff1d(part.labels, train.labels)
        if not len(missed):
            continue
        rule = f"must leave training images of {dataset.class_names[missed[0]]!r} ({dataset.description})"
        if part is validated:
            remedy = "use stratified, or fewer validation images"
            raise DataError(Problem("dataset.method", rule, settings.method, remedy))
        if settings.limit is not None:
            raise DataError(Problem("dataset.limit", rule, settings.limit, "give a larger limit"))
        if dataset.test is None:
            remedy = "add images of this class, or use fewer test images"
            raise DataError(Problem("dataset.test", rule, settings.test, remedy))
        rule = f"must be of every class of the test set, but none is of {dataset.class_names[missed[0]]!r}"
        remedy = "add images of this class, or remove it from the test set"
        raise DataError(Problem(f"{dataset.description}: training images", rule, remedy=remedy))


def _digest(dataset: Dataset) -> str:
    sha = hashlib.sha256("\0".join(dataset.class_names).encode())
    for part in (dataset.train, dataset.test):
        if part is not None:
            sha.update(str(part.images.shape).encode())
            sha.update(np.ascontiguousarray(part.images).data)
            sha.update(np.ascontiguousarray(part.labels).data)
    return sha.hexdigest()


def _count(name: str, part: float | int, total: int) -> int:
    """Returns the number of images that a fraction or a count takes of `total`."""
    count = part if isinstance(part, int) else round(part * total)
    if not 0 < count < total:
        advice = f"give a count from 1 to {total - 1}, or a fraction" if total > 1 else "use more images"
        remedy = f"{part} of {total} takes {count}: {advice}"
        raise DataError(Problem(f"dataset.{name}", "must leave images on both sides", part, remedy))
    return count


def _draw(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns two sorted index arrays: the rest, and `count` images drawn from each class in proportion."""
    from sklearn.model_selection import train_test_split

    _, sizes = np.unique(labels, return_counts=True)
    # too few images to give every class its share: draw without regard to the class
    too_few = sizes.min() < 2 or min(count, len(labels) - count) < len(sizes)
    stratify = None if too_few else labels
    rest, chosen = train_test_split(np.arange(len(labels)), test_size=count, random_state=seed, stratify=stratify)
    return np.sort(rest), np.sort(chosen)
