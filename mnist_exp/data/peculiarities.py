"""Says what is peculiar to a data set and to its splits, in notes for the user."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.decode import name_some
from mnist_exp.data.near_copies import find_near_copies

UNEQUAL = 1.5  # times the images of the smallest class that the largest may have before a note is made of it
COARSE = 0.1  # share by which the images of whole groups may be more or fewer than wanted before a note is made of it


def is_unequal(labels: np.ndarray) -> bool:
    """Whether the largest class has more than `UNEQUAL` times as many of the labels as the smallest that has any."""
    counts = np.bincount(labels)
    return bool(counts.max() > UNEQUAL * counts[counts > 0].min())


def describe_classes(labels: np.ndarray, class_names: tuple[str, ...]) -> list[str]:
    """Returns a note about the sizes of the classes, if the largest has more than `UNEQUAL` times the smallest."""
    if not is_unequal(labels):
        return []
    counts = np.bincount(labels, minlength=len(class_names))
    few, many = int(counts.argmin()), int(counts.argmax())
    shares = f"{counts[many]:,} {class_names[many]} ({counts[many] / counts.sum():.0%})"
    rare = f"{counts[few]:,} {class_names[few]} ({counts[few] / counts.sum():.0%})"
    return [f"unequal classes, from {rare} to {shares}: see balanced accuracy, and training.class_weight=balanced"]


def describe_share(name: str, wanted: int, drawn: int) -> list[str]:
    """Returns a note if whole groups have many more or fewer images than are wanted."""
    if abs(drawn - wanted) <= COARSE * wanted:
        return []
    return [f"{drawn:,} {name} images instead of {wanted:,}, because whole groups are drawn"]


def describe_contradictions(parts: Sequence[ImageSet], class_names: tuple[str, ...]) -> list[str]:
    """Returns a note if images with the same pixels have different labels."""
    digests = np.concatenate([part.digests for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    _, first, kinds = np.unique(digests, return_index=True, return_inverse=True)
    changed = labels != labels[first[kinds]]
    if not changed.any():
        return []
    count = int(np.isin(kinds, kinds[changed]).sum())
    other = int(np.flatnonzero(changed)[0])
    pair = [class_names[labels[place]] for place in (first[kinds[other]], other)]
    if all(part.names is not None for part in parts):
        names = np.concatenate([part.names for part in parts if part.names is not None])
        pair = [f"{names[place]} ({name})" for place, name in zip((first[kinds[other]], other), pair, strict=True)]
    example = " and ".join(pair)
    return [f"{count:,} identical images have different classes, such as {example}: correct or remove them"]


def describe_unseen(labels: np.ndarray, folds: Sequence[np.ndarray], class_names: tuple[str, ...]) -> list[str]:
    """Returns a note for each fold that has all images of a class, because its net cannot know this class."""
    notes = []
    for number, chosen in enumerate(folds, 1):
        alone = np.setdiff1d(labels[chosen], np.delete(labels, chosen))
        if names := [class_names[label] for label in alone]:
            what = name_some(names, "class", "classes")
            notes.append(f"fold {number} has all images of {what}: its net was trained on none of them")
    return notes


def describe_near_copies(
    train: ImageSet, validated: ImageSet, tested: ImageSet, folds: Sequence[np.ndarray]
) -> list[str]:
    """Returns a note for each split with images that are near copies of training images."""
    sides = [("validation", validated, train)] if not folds else []
    for chosen in folds:
        sides.append(("validation", train[chosen], train[np.setdiff1d(np.arange(len(train)), chosen)]))
    counts, examples = Counter[str](), dict[str, str]()
    for name, part, others in [*sides, ("test", tested, train)]:
        found = find_near_copies(part, others)
        counts[name] += len(found)
        if found and part.names is not None and others.names is not None:
            examples.setdefault(name, f", such as {part.names[found[0][0]]} of {others.names[found[0][1]]}")
    remedy = "remove them, or name what they share with dataset.group"
    return [
        f"{count:,} {name} images are near copies of training images{examples.get(name, '')}: {remedy}"
        for name, count in counts.items()
        if count
    ]
