"""Splits a data set into train, validation and test."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from mnist_exp.config.schema import Split
from mnist_exp.data.dataset import Dataset, ImageSet, Preparation, concatenate
from mnist_exp.data.peculiarities import (
    describe_classes,
    describe_contradictions,
    describe_near_copies,
    describe_share,
    describe_unseen,
)
from mnist_exp.errors import DataError, Problem

MOST_PARTS = 10  # into which groups are divided, so that some of the parts have about the share that is wanted


@dataclass(frozen=True)
class Splits:
    """The three splits of a run. A trial of a sweep has no test set, so that it cannot use it.

    digest: SHA-256 of all pixels, labels, class names and groups before splitting. repeated: the number of images that
    are in two splits, such as {"train and validation": 3}. Copies of test images are removed from train and validation,
    but counted here. notes: what was converted or left out when the data set was read, and what is peculiar to it.
    folds: places of images in `train`, int64; there `validation` has the same images, since each is that of one fold.
    Empty if the data are not in folds.
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
    notes: tuple[str, ...] = ()
    folds: tuple[np.ndarray, ...] = ()

    def fold(self, number: int) -> "Splits":
        """Returns the data of a fold, from 1: its images are those of validation, all others those of training."""
        chosen = self.folds[number - 1]
        rest = np.setdiff1d(np.arange(len(self.train)), chosen)
        return replace(self, train=self.train[rest], validation=self.train[chosen], folds=())

    def first_folds(self, count: int) -> "Splits":
        """Returns these data with the first folds only, whose images are those of validation."""
        folds = self.folds[:count]
        return replace(self, validation=self.train[np.sort(np.concatenate(folds))], folds=folds)

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
        if self.folds:
            return {f"in {len(self.folds)} folds": self.train, **test}
        return {"train": self.train, "validation": self.validation, **test}

    @property
    def scored(self) -> dict[str, ImageSet]:
        """The splits that are evaluated, by their names in metrics: `val`, and `test` if there is one."""
        return {"val": self.validation} if self.test is None else {"val": self.validation, "test": self.test}


def split(dataset: Dataset, settings: Split) -> Splits:
    """Splits a data set into train, validation and test. The same seed gives the same splits.

    validation, test: a fraction or a count, used only if the data set has no such images of its own. method: `tail`
    takes the last images for validation, `stratified` draws from each class in proportion. Of images in groups, whole
    groups are drawn, so the fraction is kept about. folds: the number of folds in the place of validation images.
    limit: the largest number of training and of test images; a count of validation images that no longer fits shrinks
    with them. Raises DataError if a split would be empty or a class would have no training image.
    """
    _check_classes(dataset)
    train, tested, validated = dataset.train, dataset.test, dataset.validation
    validation, limit, seed = settings.validation, settings.limit, settings.seed
    notes = [*dataset.notes]
    if tested is None:
        wanted = _count("test", settings.test, len(train))
        rest, chosen = _draw(train, wanted, seed)
        if train.groups is not None:
            notes += describe_share("test", wanted, len(chosen))
        train, tested = train[rest], train[chosen]
    if limit is not None:
        if isinstance(validation, int) and limit <= validation < len(train):
            validation = validation / len(train)
        train, tested = sample(train, limit, seed), sample(tested, limit, seed)
    if not dataset.curated:
        notes += describe_contradictions([part for part in (train, validated, tested) if part], dataset.class_names)
    train, copies = _remove_copies("training", train, tested, dataset.description)
    if validated is not None:
        validated, more = _remove_copies("validation", validated, tested, dataset.description)
        copies += more
    repeated = {"test and train or validation, taken out of those": copies} if copies else {}
    folds: tuple[np.ndarray, ...] = ()
    if settings.folds is not None:
        if validated is not None:
            train = concatenate(train, validated)
        validated, folds = train, _draw_folds(train, settings.folds, seed)
    elif validated is None:
        wanted = _count("validation", validation, len(train))
        if settings.method == "tail" and train.groups is None:
            rest, chosen = np.split(np.arange(len(train)), [len(train) - wanted])
        else:
            rest, chosen = _draw(train, wanted, seed)
        if train.groups is not None:
            notes += describe_share("validation", wanted, len(chosen))
            if settings.method == "tail":
                notes.append("dataset.method=tail is not used: of images in groups, whole groups are drawn")
        train, validated = train[rest], train[chosen]
    sides = {"train": train, "test": tested} if folds else {"train": train, "validation": validated, "test": tested}
    _check_groups(sides)
    _check_training(dataset, settings, train, validated, tested)
    if not folds and (count := int(np.isin(validated.digests, train.digests).sum())):
        repeated["train and validation"] = count
    if folds and (count := _count_in_two(train.digests, folds)):
        repeated["two folds"] = count
    notes += describe_classes(train.labels, dataset.class_names)
    notes += describe_unseen(train.labels, folds, dataset.class_names)
    if not dataset.curated:
        notes += describe_near_copies(train, validated, tested, folds)
    return Splits(
        name=settings.name, train=train, validation=validated, test=tested, class_names=dataset.class_names,
        description=dataset.description, digest=_digest(dataset), repeated=repeated, preparation=dataset.preparation,
        notes=tuple(notes), folds=folds,
    )  # fmt: skip


def sample(images: ImageSet, count: int, seed: int) -> ImageSet:
    """Draws at most `count` images, from each class in proportion. They keep their order."""
    if count >= len(images):
        return images
    _, chosen = _draw_images(images.labels, count, seed)
    return images[chosen]


def spread(count: int, total: int) -> np.ndarray:
    """Returns the places of `count` of so many images, or of all: at equal distances, since some sets are sorted."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)


def _remove_copies(name: str, part: ImageSet, tested: ImageSet, description: str) -> tuple[ImageSet, int]:
    """Returns the images that are not in the test set, and the number of the others."""
    copies = np.isin(part.digests, tested.digests)
    if not copies.any():
        return part, 0
    if copies.all():
        rule = f"must not all be in the test set, but all {len(copies)} are"
        remedy = "remove them from the test set, or use another test set"
        raise DataError(Problem(f"{description}: {name} images", rule, remedy=remedy))
    return part[np.flatnonzero(~copies)], int(copies.sum())


def _check_classes(dataset: Dataset) -> None:
    """Raises DataError if class names, labels or image shapes do not fit a classifier."""
    names, where = list(dataset.class_names), dataset.description
    if len(names) < 2:
        raise DataError(Problem(f"{where}: class names", "must name at least 2 classes", names, "add a class"))
    if len(set(names)) < len(names):
        raise DataError(Problem(f"{where}: class names", "must differ", names, "rename one"))
    shape = dataset.train.images.shape[1:]
    for split_name, part in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test)):
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
        if part is validated and dataset.validation is None:
            remedy = "use stratified, or fewer validation images"
            raise DataError(Problem("dataset.method", rule, settings.method, remedy))
        if settings.limit is not None:
            raise DataError(Problem("dataset.limit", rule, settings.limit, "give a larger limit"))
        if part is tested and dataset.test is None:
            remedy = "add images of this class, or use fewer test images"
            raise DataError(Problem("dataset.test", rule, settings.test, remedy))
        where = "test set" if part is tested else "validation set"
        rule = f"must be of every class of the {where}, but none is of {dataset.class_names[missed[0]]!r}"
        remedy = f"add images of this class, or remove it from the {where}"
        raise DataError(Problem(f"{dataset.description}: training images", rule, remedy=remedy))


def _digest(dataset: Dataset) -> str:
    sha = hashlib.sha256("\0".join(dataset.class_names).encode())
    for part in (dataset.train, dataset.test):
        if part is not None:
            sha.update(str(part.images.shape).encode())
            sha.update(np.ascontiguousarray(part.images).data)
            sha.update(np.ascontiguousarray(part.labels).data)
    # Only what a data set has is added, so that the digests of all others stay as they were in earlier runs.
    if (own := dataset.validation) is not None:
        sha.update(f"validation {own.images.shape}".encode())
        sha.update(np.ascontiguousarray(own.images).data)
        sha.update(np.ascontiguousarray(own.labels).data)
    for part in (dataset.train, dataset.test, own):
        if part is not None and part.groups is not None:
            sha.update(b"groups")
            sha.update(np.ascontiguousarray(part.groups).data)
    return sha.hexdigest()


def _count(name: str, part: float | int, total: int) -> int:
    """Returns the number of images that a fraction or a count takes of `total`."""
    count = part if isinstance(part, int) else round(part * total)
    if not 0 < count < total:
        advice = f"give a count from 1 to {total - 1}, or a fraction" if total > 1 else "use more images"
        remedy = f"{part} of {total} takes {count}: {advice}"
        raise DataError(Problem(f"dataset.{name}", "must leave images on both sides", part, remedy))
    return count


def _draw(images: ImageSet, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns two sorted index arrays: the rest, and `count` images, or about as many in whole groups.

    Each class is drawn from in proportion.
    """
    if images.groups is None:
        return _draw_images(images.labels, count, seed)
    from sklearn.model_selection import StratifiedGroupKFold

    number = len(np.unique(images.groups))
    if number < 2:
        rule = "must name at least 2 groups of images, to be divided"
        raise DataError(Problem("dataset.group", rule, number, "choose smaller groups, such as one per patient"))
    # Parts of about equal size: `taken` of them are the share that is wanted, such as 3 of 5 for 0.6.
    share = count / len(images)
    most = min(number, max(MOST_PARTS, round(1 / share)), int(np.bincount(images.labels).max()))
    sizes = [(taken, parts) for parts in range(2, max(2, most) + 1) for taken in range(1, parts)]
    taken, parts = min(sizes, key=lambda size: abs(size[0] / size[1] - share))
    folds = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    drawn = [chosen for _, chosen in folds.split(images.labels, images.labels, images.groups)]
    turns = (np.concatenate([drawn[(start + step) % parts] for step in range(taken)]) for start in range(parts))
    divided = [(np.setdiff1d(np.arange(len(images)), chosen), np.sort(chosen)) for chosen in turns]
    return min(divided, key=lambda pair: _missed(images.labels, *pair))


def _draw_folds(images: ImageSet, count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Returns the places of the images of each fold, sorted: each class in proportion, and groups whole.

    Images with the same pixels are in the same fold, unless they are in different groups.
    """
    from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

    if images.groups is None and len(first := np.unique(images.digests, return_index=True)[1]) < len(images):
        folds = _draw_folds(images[first := np.sort(first)], count, seed)  # one image of each kind, in their order
        return tuple(np.flatnonzero(np.isin(images.digests, images.digests[first[chosen]])) for chosen in folds)
    counts = np.bincount(images.labels)
    most = len(images) if images.groups is None else min(len(np.unique(images.groups)), int(counts.max()))
    if count > most:
        what = "images" if images.groups is None else "groups, or of images of the largest class"
        raise DataError(Problem("dataset.folds", f"must be at most {most}, the number of {what}", count))
    kind = StratifiedGroupKFold if images.groups is not None else StratifiedKFold
    if images.groups is None and counts[counts > 0].min() < count:
        kind = KFold  # a class has too few images to be in every fold
    drawn = kind(count, shuffle=True, random_state=seed).split(images.labels, images.labels, images.groups)
    return tuple(np.sort(chosen) for _, chosen in drawn)


def _count_in_two(digests: np.ndarray, folds: Sequence[np.ndarray]) -> int:
    """Returns how many images have a copy in another fold."""
    inside = Counter(digest for chosen in folds for digest in np.unique(digests[chosen]).tolist())
    return sum(inside[digest] > 1 for digest in digests.tolist())


def _missed(labels: np.ndarray, rest: np.ndarray, chosen: np.ndarray) -> int:
    """The number of classes that one of two parts does not have."""
    classes = len(np.unique(labels))
    return 2 * classes - len(np.unique(labels[rest])) - len(np.unique(labels[chosen]))


def _check_groups(parts: Mapping[str, ImageSet]) -> None:
    """Raises DataError if a data set with splits of its own has a group on two sides."""
    for (one, first), (other, second) in itertools.combinations(parts.items(), 2):
        if first.groups is None or second.groups is None:
            continue
        if len(shared := np.intersect1d(first.groups, second.groups)):
            rule = f"must not have a group on two sides, but {len(shared)} are in {one} and {other}"
            remedy = "divide the images anew, without folders or a column of splits"
            raise DataError(Problem("dataset.group", rule, remedy=remedy))


def _draw_images(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns two sorted index arrays: the rest, and `count` images drawn from each class in proportion."""
    from sklearn.model_selection import train_test_split

    _, sizes = np.unique(labels, return_counts=True)
    # too few images to give every class its share: draw without regard to the class
    too_few = sizes.min() < 2 or min(count, len(labels) - count) < len(sizes)
    stratify = None if too_few else labels
    rest, chosen = train_test_split(np.arange(len(labels)), test_size=count, random_state=seed, stratify=stratify)
    return np.sort(rest), np.sort(chosen)
