"""Trained nets, alone and of all folds together."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnist_exp.data.splits import Splits
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.training.evaluate import evaluate

if TYPE_CHECKING:
    import keras

FOLD = "fold_{}"  # the name of a net within the average of all


@dataclass(frozen=True)
class Trained:
    """A trained net. validation: what it answers for images that it was not trained on."""

    model: "keras.Model"
    history: History
    validation: Evaluation


def join(evaluations: Sequence[Evaluation], splits: Splits) -> Evaluation:
    """Returns the answers of each fold's net for the images of that fold, in the order of splits.validation."""
    order = np.argsort(np.concatenate(splits.folds), kind="stable")

    def in_order(parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts)[order]

    logits = [one.logits for one in evaluations if one.logits is not None]
    losses = [one.loss for one in evaluations if one.loss is not None]
    sizes = [len(one.labels) for one in evaluations]
    return Evaluation(
        in_order([one.labels for one in evaluations]),
        in_order([one.probabilities for one in evaluations]),
        splits.class_names,
        logits=in_order(logits) if len(logits) == len(evaluations) else None,
        loss=float(np.average(losses, weights=sizes)) if len(losses) == len(evaluations) else None,
    )


def average(trained: Sequence[Trained], validation: Evaluation) -> Trained:
    """Returns the net whose probabilities are the mean of those of several, with the mean of their histories.

    validation: what the nets answered for images that they were not trained on.
    """
    import keras

    first = trained[0].model
    pixels = keras.Input(first.input_shape[1:], name="pixels", dtype=first.inputs[0].dtype)
    answers = []
    for number, one in enumerate(trained, 1):
        one.model.name = FOLD.format(number)
        answers.append(one.model(pixels))
    mean = keras.layers.Average(name="probabilities", dtype="float32")(answers) if len(answers) > 1 else answers[0]
    epochs = [
        {name: statistics.fmean(metrics[name] for metrics in same) for name in same[0]}
        for same in zip(*(one.history.epochs for one in trained), strict=False)
    ]
    history = History(epochs, len(epochs), trained[0].history.mode, is_of_epoch=False)
    return Trained(keras.Model(pixels, mean, name="average"), history, validation)


def evaluate_unseen(model: "keras.Model", splits: Splits) -> Evaluation:
    """Returns what a model answers for the validation images.

    If it is the average of the nets of folds, each image is answered by the net that has not seen it.
    """
    if not splits.folds:
        return evaluate(model, splits.validation, splits.class_names)
    found = [
        evaluate(model.get_layer(FOLD.format(number)), splits.fold(number).validation, splits.class_names)
        for number in range(1, len(splits.folds) + 1)
    ]
    return join(found, splits)
