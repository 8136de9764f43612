"""Begins with the weights of another model, and freezes layers."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import keras

from mnist_exp.errors import Problem, TrainingError

NAMED = 6  # weights or layers that a message names


def copy_weights(model: keras.Model, parent: keras.Model, same_classes: bool = True) -> list[str]:
    """Gives a model the weights of another one. Returns the names of those that it keeps as they were.

    If both have the same shapes in the same order, all are copied; else those with the same name and shape.
    same_classes: whether both answer for the same classes; else the last layer keeps its weights. Raises TrainingError
    if no kernel is copied.
    """
    ours, theirs = model.weights, parent.weights
    if [one.shape for one in ours] == [one.shape for one in theirs]:
        pairs = list(zip(ours, theirs, strict=True))
    else:
        named = {other.path: other for other in theirs}
        alike = ((one, named.get(one.path)) for one in ours)
        pairs = [(one, other) for one, other in alike if other is not None and one.shape == other.shape]
    if not same_classes:
        *_, last = (layer for layer in model._flatten_layers() if layer.weights and not list(layer._layers))
        anew = {id(weight) for weight in last.weights}
        pairs = [(one, other) for one, other in pairs if id(one) not in anew]
    if not any(len(one.shape) > 1 for one, _ in pairs):  # a bias alone is no net
        remedy = "choose the net of that run, with its keys, or leave model=... out to take it over"
        raise TrainingError(
            Problem("training.start_from", "must share weights with the net, but has none", remedy=remedy)
        )
    for one, other in pairs:
        one.assign(other)
    copied = {id(one) for one, _ in pairs}
    return [one.path for one in ours if id(one) not in copied]


def freeze_layers(model: keras.Model, patterns: Sequence[str]) -> None:
    """Makes every layer trainable but those whose name matches one of the patterns, such as `block_1*`.

    Raises TrainingError for a pattern that matches none, and if nothing is left to train.
    """
    layers = list(model._flatten_layers(include_self=False))
    for layer in layers:
        layer.trainable = True
    for pattern in patterns:
        matching = [layer for layer in layers if fnmatchcase(layer.name, pattern)]
        if not matching:
            names = name_some([layer.name for layer in layers])
            raise TrainingError(Problem("training.freeze", "must match layers of the net", pattern, f"it has {names}"))
        for layer in matching:
            layer.trainable = False
    if not model.trainable_weights:
        raise TrainingError(Problem("training.freeze", "must leave weights to train", list(patterns), "freeze less"))


def name_some(names: Sequence[str]) -> str:
    """Returns the first of many names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
