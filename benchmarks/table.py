"""A table of learning curves: every configuration of a finite, conditional space, trained with two seeds.

python benchmarks/table.py make mnist.npz benchmarks/tables/dense.npz --net dense
python benchmarks/table.py show benchmarks/tables/dense.npz

`dense`: 1,008 dense nets, 16 epochs; `conv`: 144 convolutional ones, 9 epochs. Both are trained on 12,000 images and
validated on 12,000 others. Then the best tenth by the best validation accuracy, and every tenth of the others, are
trained with a second seed. What is done is kept after every net, and a second start goes on from there.

The file holds, for each configuration in the order of `configurations(...)` and each seed, accuracy (validation images
that are classified correctly), loss (validation) and seconds by epoch; 0, infinity and 0 where it was not trained.
"""

import argparse
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

IMAGES = 12_000  # of training, and of validation
SEEDS = 2
# Each configuration is one of `choices` and one of the values below it: what a sweep has as conditions.
SPACES: dict[str, dict[str, Any]] = {
    "dense": {
        "epochs": 16,
        "fixed": ["model=mlp"],
        "values": {
            "model.widths": [[32], [64], [128], [256], [64, 32], [128, 64], [256, 128]],
            "model.dropout": [0.0, 0.2, 0.4],
            "training.batch_size": [32, 128, 512],
        },
        "choices": {
            "adam": {"optimizer.learning_rate": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]},
            "sgd": {
                "optimizer.learning_rate": [3e-3, 1e-2, 3e-2, 0.1, 0.3],
                "optimizer.momentum": [0.0, 0.9],
            },
        },
    },
    "conv": {
        "epochs": 9,
        "fixed": ["model=cnn"],
        "values": {
            "model.blocks": [[[8]], [[16]], [[8], [16]]],
            "model.dense": [[], [32]],
            "model.dense_dropout": [0.0, 0.3],
            "training.batch_size": [32, 128],
        },
        "choices": {
            "adam": {"optimizer.learning_rate": [3e-4, 1e-3, 3e-3]},
            "adadelta": {"optimizer.learning_rate": [0.1, 0.5, 1.0]},
        },
    },
}


def configurations(net: str) -> Iterator[dict[str, Any]]:
    """Every configuration of a space: values by key, and the choice of `optimizer`."""
    space = SPACES[net]
    for optimizer, more in space["choices"].items():
        values = space["values"] | more
        for combination in itertools.product(*values.values()):
            yield {"optimizer": optimizer, **dict(zip(values, combination, strict=True))}


@dataclass
class Table:
    """accuracy: int32 (configurations, seeds, epochs), images right. loss, seconds: float32, the same shape."""

    net: str
    accuracy: np.ndarray
    loss: np.ndarray
    seconds: np.ndarray

    @classmethod
    def empty(cls, net: str) -> "Table":
        shape = (len(list(configurations(net))), SEEDS, SPACES[net]["epochs"])
        infinite = np.full(shape, np.inf, np.float32)
        return cls(net, np.zeros(shape, np.int32), infinite, np.zeros(shape, np.float32))

    @classmethod
    def read(cls, path: Path) -> "Table":
        with np.load(path) as arrays:
            return cls(str(arrays["net"]), arrays["accuracy"], arrays["loss"], arrays["seconds"])

    def write(self, path: Path) -> None:
        temporary = path.with_suffix(".new.npz")
        np.savez_compressed(temporary, **vars(self), made_on=facts())
        temporary.replace(path)

    def is_trained(self, number: int, seed: int) -> bool:
        return bool(self.seconds[number, seed, -1] > 0)

    def best(self, number: int) -> float:
        """The best validation accuracy of the first seed."""
        return float(self.accuracy[number, 0].max() / IMAGES)

    @property
    def chosen(self) -> list[int]:
        """Configurations that are trained with a second seed, when all have the first."""
        order = sorted(range(len(self.accuracy)), key=lambda number: (-self.best(number), number))
        tenth = -(-len(order) // 10)
        return order[:tenth] + order[tenth::10]


def facts() -> str:
    import keras
    import tensorflow as tf

    return f"{platform.machine()}, TensorFlow {tf.__version__}, Keras {keras.__version__}, one thread"


def train(net: str, values: dict[str, Any], path: str, seed: int) -> tuple[list[int], list[float], list[float]]:
    """Trains a configuration. Returns images right, loss and seconds by epoch."""
    import tempfile

    from mnist_exp.config.check import check
    from mnist_exp.config.compose import compose
    from mnist_exp.config.run_config import format_value
    from mnist_exp.config.schema import Training
    from mnist_exp.data.load import load_splits
    from mnist_exp.errors import TrainingError
    from mnist_exp.optimizers import build_optimizer
    from mnist_exp.training.fit import fit, prepare_keras

    fixed = [*SPACES[net]["fixed"], "dataset=mnist", f"dataset.path={path}", "dataset.method=tail"]
    fixed += [f"dataset.limit={2 * IMAGES}", f"dataset.validation={IMAGES}", f"training.epochs={SPACES[net]['epochs']}"]
    given = [f"{key}={value if key == 'optimizer' else format_value(value)}" for key, value in values.items()]
    config = check(compose([*fixed, *given, f"seed={seed}"]))
    splits, settings = load_splits(config, cache=True), config.settings(Training)
    assert len(splits.train) == len(splits.validation) == IMAGES, (len(splits.train), len(splits.validation))
    prepare_keras(seed, settings)
    model = config.build("model", image_shape=splits.image_shape, classes=10)
    ends = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder:
        try:
            history, _ = fit(
                model, build_optimizer(config, settings.steps(IMAGES)), splits, settings, seed, Path(folder),
                on_epoch=lambda epoch, metrics: ends.append(time.perf_counter()),
            )  # fmt: skip
            epochs = history.epochs
        except TrainingError:  # it diverged: the loss is not finite
            epochs = []
    missing = SPACES[net]["epochs"] - len(epochs)
    right = [round(epoch["val_accuracy"] * IMAGES) for epoch in epochs] + [IMAGES // 10] * missing
    seconds = np.diff(ends).tolist()[: len(epochs)]
    seconds[:1] = seconds[1:2]  # without compiling, which a replay adds by itself
    seconds += [float(np.median(seconds)) if seconds else 0.1] * missing
    return right, [epoch["val_loss"] for epoch in epochs] + [np.inf] * missing, seconds


def make(path: str, to: Path, net: str) -> None:
    table = Table.read(to) if to.exists() else Table.empty(net)
    every = list(configurations(net))
    # Nets of the same shape follow each other, so that they share a compiled program.
    order = sorted(range(len(every)), key=lambda n: json.dumps([v for k, v in every[n].items() if "rate" not in k]))
    for seed in range(SEEDS):
        numbers = order if seed == 0 else [number for number in order if number in set(table.chosen)]
        for place, number in enumerate(numbers):
            if table.is_trained(number, seed):
                continue
            right, loss, seconds = train(net, every[number], path, seed)
            table.accuracy[number, seed], table.loss[number, seed], table.seconds[number, seed] = right, loss, seconds
            if place % 10 == 0 or place == len(numbers) - 1:
                table.write(to)
                best = max(right) / IMAGES
                print(f"seed {seed}: {place + 1} of {len(numbers)}, {every[number]}: {best:.4f}", flush=True)


def show(path: Path) -> None:
    table = Table.read(path)
    every = list(configurations(table.net))
    done = [sum(table.is_trained(number, seed) for number in range(len(every))) for seed in range(SEEDS)]
    print(f"{table.net}: {len(every)} configurations, {done[0]} and {done[1]} trained with the first and second seed")
    order = sorted(range(len(every)), key=lambda number: -table.best(number))
    for number in order[:5]:
        print(f"{table.best(number):.4f}  {every[number]}")
    hours = table.seconds.sum() / 3600
    print(f"{hours:.2f} hours of epochs; {path.stat().st_size / 2**20:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make")
    making.add_argument("path", help="MNIST as npz")
    making.add_argument("to", type=Path)
    making.add_argument("--net", choices=list(SPACES), default="dense")
    verbs.add_parser("show").add_argument("table", type=Path)
    given = parser.parse_args()
    if given.verb == "show":
        show(given.table)
        sys.exit()
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    make(str(Path(given.path).resolve()), given.to, given.net)
