"""Seconds an epoch of training, warm: the compiled epoch against `model.fit` as everybody writes it, taken in turn.

python benchmarks/epoch.py mnist.npz --rounds 5
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.config.schema import Training
from mnist_exp.data.load import load_splits
from mnist_exp.data.splits import Splits
from mnist_exp.training.batches import BatchOrder
from mnist_exp.training.build import build_optimizer
from mnist_exp.training.evaluate import encode_labels
from mnist_exp.training.fit import build_loss
from mnist_exp.training.modes import choose_mode
from mnist_exp.training.program import Data, get_program


def plain_epoch(splits: Splits, targets: np.ndarray, model: keras.Model, settings: Training) -> Callable[[], None]:
    """Pixels as floats in memory, labels beside them, `fit`. No validation, no callbacks."""
    images = splits.train.images.astype(np.float32)

    def epoch() -> None:
        model.fit(images, targets, batch_size=settings.batch_size, verbose=0)

    return epoch


def our_epoch(splits: Splits, targets: np.ndarray, model: keras.Model, settings: Training) -> Callable[[], None]:
    """The same as a compiled program, which validates on one image."""
    order, images = BatchOrder(len(targets), settings.batch_size, seed=0), splits.train.images
    data = Data.of((images, targets), (images[:1], targets[:1]), 1)
    program = get_program(model, data, order, choose_mode(model, settings.compiled_epoch))

    def epoch() -> None:
        model.reset_metrics()
        list(program.train(order, data))

    return epoch


def prepared(experiment: str, path: str, kind: Callable[..., Callable[[], None]]) -> Callable[[], None]:
    """One epoch of this experiment, compiled and run once already."""
    config = check(compose([f"experiment={experiment}", f"dataset.path={path}"]))
    splits, settings = load_splits(config), config.settings(Training)
    keras.utils.set_random_seed(0)
    model = config.build("model", image_shape=splits.image_shape, classes=len(splits.class_names))
    model.compile(build_optimizer(config, 1), build_loss(settings), metrics=["accuracy"])
    epoch = kind(splits, encode_labels(splits.train.labels, model.loss, len(splits.class_names)), model, settings)
    epoch()
    return epoch


def seconds(call: Callable[[], None]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def compare(experiment: str, path: str, rounds: int) -> None:
    """Prints medians and the ratio round by round."""
    plain, ours = prepared(experiment, path, plain_epoch), prepared(experiment, path, our_epoch)
    pairs = [(seconds(plain), seconds(ours)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"{experiment}: model.fit {slow:.2f} s, compiled epoch {fast:.2f} s, "
        f"{statistics.median(ratios):.2f} times faster ({ratios[0]:.2f} to {ratios[-1]:.2f}, {rounds} rounds)",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="MNIST as npz")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--experiments", nargs="+", default=["dense_100", "cnn_adadelta"])
    chosen = parser.parse_args()
    for experiment in chosen.experiments:
        compare(experiment, chosen.path, chosen.rounds)
