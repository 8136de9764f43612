"""How often `compare` calls one of ten equal runs different, by the correction of the p values.

python benchmarks/false_differences.py

In each repetition ten runs classify the same images. All are equally good: each classifies an image correctly with the
probability of that image, independently of the other runs. The probabilities are drawn once per repetition, so that
runs agree on easy and on hard images, as real ones do. The tests and the correction are those of `compare`. A family is
false if the verdict of at least one test is not `no difference shown`.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from mnist_exp.evaluation.statistics import SIGNIFICANT, PairedTest, correct_all, test_pairs

Pair = tuple[int, int]
ROWS = {
    "the best run, no correction": "none",
    "the best run, Holm over the others": "others",
    "the best run, Holm over all pairs (`compare`)": "pairs",
    "a named run, Holm over the others (`compare --reference RUN`)": "named",
}


def simulate_family(generator: np.random.Generator, runs: int, images: int, accuracy: float) -> list[dict]:
    """Returns the predictions of equal runs: labels are 1, and a correct prediction is 1."""
    probabilities = generator.beta(5 * accuracy, 5 * (1 - accuracy), images)
    digests = np.arange(images).astype("S32")
    return [
        {
            "val_predicted": (generator.random(images) < probabilities).astype(np.int16),
            "val_labels": np.ones(images, np.int16),
            "val_digests": digests,
        }
        for _ in range(runs)
    ]


def is_false(tests: Sequence[PairedTest]) -> bool:
    return any(test.verdict != "no difference shown" for test in tests)


def judge_family(family: Sequence[dict]) -> dict[str, bool]:
    """Returns for each row whether some run is called different from the reference."""
    count = len(family)
    best = int(np.argmax([run["val_predicted"].sum() for run in family]))
    tests = test_pairs(family, combinations(range(count), 2), "val")
    corrected = dict(zip(tests, correct_all(list(tests.values())), strict=True))

    def of(reference: int) -> list[Pair]:
        return [pair for pair in tests if reference in pair]

    against_best, against_named = [tests[pair] for pair in of(best)], [tests[pair] for pair in of(0)]
    return {
        "none": is_false(against_best),
        "others": is_false(correct_all(against_best)),
        "pairs": is_false([corrected[pair] for pair in of(best)]),
        "named": is_false(correct_all(against_named)),
    }


def main(repetitions: int, runs: int, images: int, accuracy: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    found = [judge_family(simulate_family(generator, runs, images, accuracy)) for _ in range(repetitions)]
    print(f"{repetitions} families of {runs} equal runs, {images:,} images, accuracy {accuracy:g}, p < {SIGNIFICANT}")
    print("| reference and correction | families with a false difference |\n|---|---|")
    for name, key in ROWS.items():
        print(f"| {name} | {np.mean([one[key] for one in found]):.1%} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--accuracy", type=float, default=0.975)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
