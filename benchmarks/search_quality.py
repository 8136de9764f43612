"""How good a search is after 50 trials: TPE against KerasTuner's random and Bayesian search, seed by seed.

pip install -e ".[bench]" && python benchmarks/search_quality.py --seeds 10

The objective is made up (lower is better, best 0.02): numbers, choices, and learning rates under conditions.
"""

import argparse
import math
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_tuner
import numpy as np

from mnist_exp.sweep.oracles import Random, Tpe, hyperparameters
from mnist_exp.sweep.proposal import Proposal
from mnist_exp.sweep.space import Values, parse

SPACE = {
    "dropout": "interval(0.0, 0.6)",
    "units": "tag(log, int(interval(16, 256)))",
    "depth": "range(1, 5)",
    "norm": "true, false",
    "batch": "32, 64, 128",
    "optimizer": "adam, adadelta",
    "when": {
        "optimizer=adam": {"rate": "tag(log, interval(1e-4, 1e-1))", "beta": "interval(0.8, 0.99)"},
        "optimizer=adadelta": {"rate": "tag(log, interval(1e-2, 10.0))"},
    },
}
RATES = {"adam": ("optimizer=adam/rate", -3.0, 0.02), "adadelta": ("optimizer=adadelta/rate", 0.0, 0.05)}


def loss(values: Values) -> float:
    name, best, floor = RATES[str(values["optimizer"])]
    return (
        floor
        + 0.1 * (math.log10(float(values[name])) - best) ** 2
        + 0.8 * (float(values["dropout"]) - 0.25) ** 2
        + 0.02 * (math.log2(float(values["units"])) - 7) ** 2
        + 0.02 * abs(float(values["depth"]) - 2)
        + 0.02 * (values["norm"] == "false")
        + {"32": 0.01, "64": 0.0, "128": 0.02}[str(values["batch"])]
        + 0.5 * (float(values.get("optimizer=adam/beta", 0.9)) - 0.9) ** 2
    )


def bayesian(seed: int, trials: int) -> list[float]:
    """KerasTuner's own oracle, as its tuner drives it."""
    space = parse(SPACE, "benchmark", [], {})
    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        objective=keras_tuner.Objective("loss", "min"), max_trials=trials, seed=seed + 1,
        hyperparameters=hyperparameters(space),
    )  # fmt: skip
    oracle.verbose = 0
    oracle.save = oracle._save_trial = lambda *args: None
    found = []
    for _ in range(trials):
        trial = oracle.create_trial("tuner")
        if trial.status != "RUNNING":
            break
        found.append(loss(trial.hyperparameters.values))
        oracle.update_trial(trial.trial_id, {"loss": found[-1]})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return found


def of(kind: type) -> object:
    def run(seed: int, trials: int) -> list[float]:
        oracle, found = kind(parse(SPACE, "benchmark", [], {}), "min", seed), []
        for _ in range(trials):
            asked = oracle.ask()
            assert isinstance(asked, Proposal)
            found.append(loss(asked.values))
            oracle.tell(asked.number, found[-1])
        return found

    return run


def main(seeds: int, trials: int) -> None:
    best: dict[str, list[float]] = {}
    for name, run in (("tpe", of(Tpe)), ("random", of(Random)), ("bayesian", bayesian)):
        begun = time.perf_counter()
        best[name] = [min(run(seed, trials)) for seed in range(seeds)]
        spent = (time.perf_counter() - begun) / seeds / trials * 1000
        print(f"{name}: median of the best {statistics.median(best[name]):.4f}, {spent:.0f} ms a trial", flush=True)
    for name in ("random", "bayesian"):
        differences = np.array(best[name]) - np.array(best["tpe"])
        wins = int((differences > 0).sum())
        print(
            f"tpe is better than {name} on {wins} of {seeds} seeds, by {differences.mean():.4f} on average "
            f"(standard error {differences.std(ddof=1) / math.sqrt(seeds):.4f})"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=50)
    chosen = parser.parse_args()
    main(chosen.seeds, chosen.trials)
