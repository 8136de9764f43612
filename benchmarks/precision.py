"""Seconds an epoch of mnist_best's net in float32 and in mixed_bfloat16, warm, taken in turn, on random pixels.

python benchmarks/precision.py --rounds 3
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
from mnist_exp.training.batches import BatchOrder
from mnist_exp.training.program import Data, get_program

IMAGES, BATCH = 128 * 40, 128


def prepared(policy: str) -> Callable[[], float]:
    """A call that trains for one epoch under this policy and returns its seconds."""
    config = check(compose(["experiment=mnist_best"]))
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (IMAGES, 28, 28, 1), dtype=np.uint8), rng.integers(0, 10, IMAGES)
    keras.config.set_dtype_policy(policy)
    model = config.build("model", image_shape=(28, 28, 1), classes=10)
    model.compile("adamw", keras.losses.SparseCategoricalCrossentropy())
    order, data = BatchOrder(IMAGES, BATCH, 0), Data.of((images, labels), (images[:1], labels[:1]), 1)
    program = get_program(model, data, order, "windows")

    def epoch() -> float:
        begun = time.perf_counter()
        model.reset_metrics()
        list(program.train(order, data))
        return time.perf_counter() - begun

    epoch()
    return epoch


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    single, mixed = prepared("float32"), prepared("mixed_bfloat16")
    ratios = sorted(single() / mixed() for _ in range(rounds))
    print(
        f"mixed_bfloat16 {statistics.median(ratios):.2f} times as fast as float32 "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}, {rounds} rounds)"
    )
