"""A table of learning curves: every configuration of a finite, conditional space, trained with two seeds.

python benchmarks/table.py make benchmarks/tables/mnist-dense.npz --net dense dataset=mnist dataset.path=mnist.npz \
    dataset.method=tail dataset.limit=24000 dataset.validation=12000
python benchmarks/table.py show benchmarks/tables/mnist-dense.npz

`dense`: 1,008 dense nets, 16 epochs; `conv`: 144 convolutional ones, 9 epochs. All are trained on the same
images. Then the best tenth by the best validation accuracy, and every tenth of the others, are
trained with a second seed. What is done is kept after every net, and a second start goes on from there.

The file holds, for each configuration in the order of `space.combinations()` and each seed, the validation images that
are classified correctly, loss (validation) and seconds by epoch, of the processor; 0, infinity and 0 where it was not
trained.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from mnist_exp.config.compose import PACKAGE_SOURCE
from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import Training
from mnist_exp.data.load import load_splits
from mnist_exp.errors import TrainingError
from mnist_exp.sweep.syntax import read_space
from mnist_exp.sweep.trial_configs import TrialConfigs
from mnist_exp.training.build import build_optimizer

SEEDS = 2
# Everything is a choice or a range, so that whatever a search proposes is a row of the table.
SPACES: dict[str, dict[str, Any]] = {
    "dense": {
        "model.widths": "[32], [64], [128], [256], [64,32], [128,64], [256,128]",
        "model.dropout": "range(0.0, 0.5, 0.2)",
        "training.batch_size": "tag(log, range(32, 513, 4))",
        "optimizer": "adam, sgd",
        "when": {
            "optimizer=adam": {"optimizer.learning_rate": f"tag(log, range(1e-4, 0.04, {10**0.5}))"},
            "optimizer=sgd": {
                "optimizer.learning_rate": f"tag(log, range(3e-3, 0.4, {10**0.5}))",
                "optimizer.momentum": "0.0, 0.9",
            },
        },
    },
    "conv": {
        "model.blocks": "choice([[8]], [[16]], [[8],[16]])",
        "model.dense": "choice([], [32])",
        "model.dense_dropout": "0.0, 0.3",
        "training.batch_size": "32, 128",
        "optimizer": "adam, adadelta",
        "when": {
            "optimizer=adam": {"optimizer.learning_rate": f"tag(log, range(3e-4, 4e-3, {10**0.5}))"},
            "optimizer=adadelta": {"optimizer.learning_rate": "0.1, 0.5, 1.0"},
        },
    },
}
EPOCHS = {"dense": 16, "conv": 9}
FIXED = {"dense": ["model=mlp"], "conv": ["model=cnn"]}


def configs_of(net: str, dataset: Sequence[str] = ()) -> TrialConfigs:
    """The space of a net and its configs."""
    fixed = [*FIXED[net], *dataset, f"training.epochs={EPOCHS[net]}", "tracking=off"]
    choices = {"model": FIXED[net][0].removeprefix("model=")}
    space, problems = read_space(SPACES[net], "benchmark", fixed, choices, PACKAGE_SOURCE)
    assert not problems, problems
    return TrialConfigs.compose(space, fixed)


@dataclass
class Table:
    """right: int32 (configurations, seeds, epochs), validation images. loss, seconds: float32, the same shape.

    images: of validation. dataset: its name.
    """

    net: str
    dataset: str
    images: int
    made_on: str
    right: np.ndarray
    loss: np.ndarray
    seconds: np.ndarray

    @classmethod
    def empty(cls, net: str, dataset: str, images: int) -> "Table":
        shape = (configs_of(net).space.size, SEEDS, EPOCHS[net])
        infinite = np.full(shape, np.inf, np.float32)
        return cls(net, dataset, images, facts(), np.zeros(shape, np.int32), infinite, np.zeros(shape, np.float32))

    @classmethod
    def read(cls, path: Path) -> "Table":
        with np.load(path) as arrays:
            words = {name: str(arrays[name]) for name in ("net", "dataset", "made_on")}
            numbers = {name: arrays[name] for name in ("right", "loss", "seconds")}
            return cls(**words, images=int(arrays["images"]), **numbers)

    def write(self, path: Path) -> None:
        temporary = path.with_suffix(".new.npz")
        np.savez_compressed(temporary, **vars(self))
        temporary.replace(path)

    def is_trained(self, number: int, seed: int) -> bool:
        return bool(self.seconds[number, seed, -1] > 0)

    def best(self, number: int) -> float:
        """The best validation accuracy of the first seed."""
        return float(self.right[number, 0].max() / self.images)

    @property
    def chosen(self) -> list[int]:
        """Configurations that are trained with a second seed, when all have the first."""
        order = sorted(range(len(self.right)), key=lambda number: (-self.best(number), number))
        tenth = -(-len(order) // 10)
        return order[:tenth] + order[tenth::10]


def facts() -> str:
    import keras
    import tensorflow as tf

    return f"{platform.machine()}, TensorFlow {tf.__version__}, Keras {keras.__version__}, one thread"


def train(config: RunConfig) -> tuple[list[int], list[float], list[float]]:
    """Trains a configuration. Returns images right, loss and seconds by epoch."""
    from mnist_exp.training.fit import fit, prepare_keras

    splits, settings, seed = load_splits(config, cache=True), config.settings(Training), config.seed
    prepare_keras(seed, settings)
    model = config.build("model", image_shape=splits.image_shape, classes=10)
    # Of the processor, so that whatever else the machine does is not counted. A program has one thread.
    ends = [time.process_time()]
    with tempfile.TemporaryDirectory() as folder:
        try:
            history, _ = fit(
                model, build_optimizer(config, settings.steps(len(splits.train))), splits, settings, seed, Path(folder),
                on_epoch=lambda epoch, metrics: ends.append(time.process_time()),
            )  # fmt: skip
            epochs = history.epochs
        except TrainingError:  # it diverged: the loss is not finite
            epochs = []
    missing, images = settings.epochs - len(epochs), len(splits.validation)
    right = [round(epoch["val_accuracy"] * images) for epoch in epochs] + [images // 10] * missing
    seconds = np.diff(ends).tolist()[: len(epochs)]
    seconds[:1] = seconds[1:2]  # without compiling, which a replay adds by itself
    seconds += [float(np.median(seconds)) if seconds else 0.1] * missing
    return right, [epoch["val_loss"] for epoch in epochs] + [np.inf] * missing, seconds


def make(dataset: Sequence[str], to: Path, net: str) -> None:
    configs = configs_of(net, dataset)
    every = [configs.of(values) for values in configs.space.combinations()]
    splits = load_splits(every[0])
    table = Table.read(to) if to.exists() else Table.empty(net, splits.name, len(splits.validation))
    print(f"{len(every)} configurations, {len(splits.train)} images, validated on {table.images}", flush=True)

    def shape(number: int) -> str:
        values = every[number].values
        rates = {"learning_rate": 0, "momentum": 0}
        return json.dumps([values["model"], {**values["optimizer"], **rates}, values["training"]["batch_size"]])

    order = sorted(range(len(every)), key=shape)  # one program after another
    for seed in range(SEEDS):
        chosen = set(order) if seed == 0 else set(table.chosen)
        numbers = [number for number in order if number in chosen and not table.is_trained(number, seed)]
        for place, number in enumerate(numbers, 1):
            right, loss, seconds = train(every[number].with_values({"seed": seed}))
            table.right[number, seed], table.loss[number, seed], table.seconds[number, seed] = right, loss, seconds
            if place % 10 == 0 or place == len(numbers):
                table.write(to)
                print(f"seed {seed}: {place} of {len(numbers)}: {max(right) / table.images:.4f}", flush=True)


def show(path: Path) -> None:
    table = Table.read(path)
    every = list(configs_of(table.net).space.combinations())
    done = [sum(table.is_trained(number, seed) for number in range(len(every))) for seed in range(SEEDS)]
    print(f"{table.net}: {len(every)} configurations, {done[0]} and {done[1]} trained with the first and second seed")
    order = sorted(range(len(every)), key=lambda number: -table.best(number))
    for number in order[:5]:
        print(f"{table.best(number):.4f}  {every[number]}")
    hours = table.seconds.sum() / 3600
    print(f"{hours:.2f} hours of epochs; {path.stat().st_size / 2**20:.2f} MB; {table.made_on}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make")
    making.add_argument("to", type=Path)
    making.add_argument("dataset", nargs="+", help="overrides such as dataset=mnist dataset.path=mnist.npz")
    making.add_argument("--net", choices=list(SPACES), default="dense")
    verbs.add_parser("show").add_argument("table", type=Path)
    given = parser.parse_args()
    if given.verb == "show":
        show(given.table)
        sys.exit()
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    make(given.dataset, given.to, given.net)
