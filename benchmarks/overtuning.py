"""How much too good a sweep's best score is, with and without sweep.confirm, over simulated sweeps.

python benchmarks/overtuning.py benchmarks/tables/mnist-dense.npz

A configuration of the table has a true mean, that of the two seeds it was trained with after its last epoch, and each
training of it is the mean and a normal error. The error's deviation is that of the table: from the differences of the
two seeds, among the better half. A sweep draws its trials from the table, ranks them, and trains the best few again in
the race of sweep.confirm. Printed are means over the sweeps in points of accuracy, with their standard errors.
"""

import argparse
import math
import statistics
from pathlib import Path

import numpy as np

from mnist_exp.config.objective import Objective
from mnist_exp.sweep.race import race

ACCURACY = Objective("val/accuracy", "max")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--sweeps", type=int, default=50)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--best", type=int, default=3)
    parser.add_argument("--most", type=int, default=5)
    chosen = parser.parse_args()
    with np.load(chosen.table) as table:
        final = table["right"][:, :, -1].astype(float) / table["images"]
        known = (table["right"][:, :, -1] > 0).all(axis=1)
    both = final[known]
    means = both.mean(axis=1)
    better = both[means >= np.median(means)]
    noise = float((better[:, 0] - better[:, 1]).std() / math.sqrt(2))
    rng = np.random.default_rng(0)
    plain, raced, plain_true, raced_true, seeds = [], [], [], [], []
    for _ in range(chosen.sweeps):
        true = rng.choice(means, chosen.trials, replace=False)
        first = true + rng.normal(0, noise, chosen.trials)
        ranked = [int(one) for one in np.argsort(-first)[: chosen.best]]
        scores: dict[int, dict[int, float | None]] = {}
        while (stand := race(ranked, scores, chosen.most, ACCURACY)).open:
            for trial, seed in stand.open:
                scores.setdefault(trial, {})[seed] = float(true[trial] + rng.normal(0, noise))
        winner = stand.left[0]
        confirmed = statistics.fmean(score for score in scores[winner].values() if score is not None)
        plain.append(100 * (first[ranked[0]] - true[ranked[0]]))
        raced.append(100 * (confirmed - true[winner]))
        plain_true.append(100 * true[ranked[0]])
        raced_true.append(100 * true[winner])
        seeds.append(sum(map(len, scores.values())))

    def shown(values: list[float]) -> str:
        return (
            f"{statistics.fmean(values):+.3f} (standard error {statistics.stdev(values) / math.sqrt(len(values)):.3f})"
        )

    gained = [b - a for a, b in zip(plain_true, raced_true, strict=True)]
    print(
        f"{chosen.table.stem}: {len(both)} configurations with two seeds, noise of a training {100 * noise:.3f} points"
    )
    print(f"{chosen.sweeps} sweeps of {chosen.trials} trials")
    print(f"winner's score minus its true mean, the best score: {shown(plain)}")
    print(f"winner's score minus its true mean, confirm={chosen.best}:  {shown(raced)}")
    print(f"true mean of the winner, confirm against best score: {shown(gained)}")
    print(f"{statistics.fmean(seeds):.1f} trainings more for each sweep, of at most {chosen.best * chosen.most}")


if __name__ == "__main__":
    main()
