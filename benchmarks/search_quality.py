"""How good a search is after a number of trials: TPE against KerasTuner's searches and plain Optuna, seed by seed.

pip install -e ".[bench]" && python benchmarks/search_quality.py --seeds 10
python benchmarks/search_quality.py --seeds 200 --problem made-up --search tpe optuna

Lower is better in both problems. `made-up`: a formula of numbers, choices, and learning rates under conditions; its
best is 0.02. `digits`: the validation loss of dense nets after 20 epochs on scikit-learn's digits; each of the 240
nets is trained once, on all cores, before the searches look them up.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_tuner
import numpy as np
import optuna

from mnist_exp.config.compose import PACKAGE_SOURCE
from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import RunConfig, format_value
from mnist_exp.sweep.executors.local import Local
from mnist_exp.sweep.samplers.base import RandomSampler, Sampler, hyperparameters
from mnist_exp.sweep.samplers.tpe import TpeSampler
from mnist_exp.sweep.space import Parameter, Space, Values
from mnist_exp.sweep.syntax import read_space
from mnist_exp.sweep.trial import Proposal
from mnist_exp.sweep.trial_configs import TrialConfigs

Loss = Callable[[Values], float]
MADE_UP = {
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
DIGITS = {
    "model.widths": "[16], [32], [64], [128], [64,64], [128,128]",
    "model.dropout": "range(0.0, 0.7, 0.2)",
    "optimizer": "adam, adadelta",
    "when": {
        "optimizer=adam": {"optimizer.learning_rate": "tag(log, range(1e-4, 0.1, 4))"},
        "optimizer=adadelta": {"optimizer.learning_rate": "tag(log, range(1e-2, 10.0, 4))"},
    },
}
FIXED = ("dataset=digits", "dataset.size=8", "model=mlp", "training.epochs=20", "tracking=off")
RATES = {"adam": ("optimizer=adam/rate", -3.0, 0.02), "adadelta": ("optimizer=adadelta/rate", 0.0, 0.05)}


@dataclass(frozen=True)
class Problem:
    """What is searched, and the loss of a trial with these values."""

    space: Space
    loss: Loss
    trials: int


def made_up() -> Problem:
    def loss(values: Values) -> float:
        name, best, floor = RATES[values["optimizer"]]
        return (
            floor
            + 0.1 * (math.log10(float(values[name])) - best) ** 2
            + 0.8 * (float(values["dropout"]) - 0.25) ** 2
            + 0.02 * (math.log2(float(values["units"])) - 7) ** 2
            + 0.02 * abs(float(values["depth"]) - 2)
            + 0.02 * (not values["norm"])
            + {32: 0.01, 64: 0.0, 128: 0.02}[values["batch"]]
            + 0.5 * (float(values.get("optimizer=adam/beta", 0.9)) - 0.9) ** 2
        )

    return Problem(read_space(MADE_UP, "benchmark", [], {}, PACKAGE_SOURCE)[0], loss, 50)


def digits() -> Problem:
    space, _ = read_space(DIGITS, "benchmark", FIXED, {"model": "mlp"}, PACKAGE_SOURCE)
    configs = TrialConfigs.compose(space, FIXED)
    combinations = list(configs.space.combinations())
    workers = os.cpu_count() or 1
    with Local(workers) as executor, ThreadPoolExecutor(workers) as threads:  # as many calls as workers, and no more
        found = list(threads.map(lambda values: executor.submit(trained, configs.of(values)).result(), combinations))
    table = {key(values): loss for values, loss in zip(combinations, found, strict=True)}
    print(f"digits: {len(table)} nets trained, losses {min(found):.4f} to {max(found):.4f}", flush=True)
    return Problem(configs.space, lambda values: table[key(values)], 30)


def key(values: Values) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, format_value(value)) for name, value in values.items()))


def trained(config: RunConfig) -> float:
    import keras

    from mnist_exp.experiment import run

    keras.backend.clear_session()
    return run(config).metrics["val/loss"]


def bayesian(problem: Problem, seed: int) -> list[float]:
    """KerasTuner's own oracle, as its tuner drives it."""
    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        objective=keras_tuner.Objective("loss", "min"), max_trials=problem.trials, seed=seed + 1,
        hyperparameters=hyperparameters(problem.space),
    )  # fmt: skip
    oracle.verbose = 0
    oracle.save = oracle._save_trial = lambda *args: None
    found = []
    for _ in range(problem.trials):
        trial = oracle.create_trial("tuner")
        if trial.status != "RUNNING":
            break
        found.append(problem.loss(problem.space.sample(partial(decoded, trial.hyperparameters.values))))
        oracle.update_trial(trial.trial_id, {"loss": found[-1]})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return found


def decoded(codes: Mapping[str, Any], parameter: Parameter) -> Any:
    """The value of a parameter: KerasTuner has only the place of what can be counted."""
    code = codes[parameter.name]
    return parameter.grid[code] if parameter.values.enumerable else code


def ours(kind: type[Sampler], problem: Problem, seed: int) -> list[float]:
    sampler, found = kind(problem.space, Objective("loss", "min"), seed), []
    for _ in range(problem.trials):
        asked = sampler.ask()
        assert isinstance(asked, Proposal)
        found.append(problem.loss(asked.values))
        sampler.tell(asked.number, found[-1])
    return found


def plain_optuna(problem: Problem, seed: int) -> list[float]:
    """Optuna's own loop: one sampler, seeded once."""
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=seed))
    suggest, found = TpeSampler(problem.space, Objective("loss", "min"), 0)._suggest, list[float]()
    for _ in range(problem.trials):
        trial = study.ask()
        found.append(problem.loss(problem.space.sample(partial(suggest, trial))))
        study.tell(trial, found[-1])
    return found


def compare(name: str, problem: Problem, seeds: Sequence[int], chosen: Sequence[str]) -> None:
    every = {
        "tpe": lambda seed: ours(TpeSampler, problem, seed),
        "random": lambda seed: ours(RandomSampler, problem, seed),
        "bayesian": lambda seed: bayesian(problem, seed),
        "optuna": lambda seed: plain_optuna(problem, seed),
    }
    searches = {search: every[search] for search in chosen}
    best: dict[str, np.ndarray] = {}
    for search, run in searches.items():
        begun = time.perf_counter()
        best[search] = np.array([min(run(seed)) for seed in seeds])
        spent = (time.perf_counter() - begun) / len(seeds) / problem.trials * 1000
        print(f"{name}, {search}: median of the best {statistics.median(best[search]):.4f}, {spent:.0f} ms a trial")
    for search in chosen[1:]:
        gained = best[search] - best[chosen[0]]
        error = gained.std(ddof=1) / math.sqrt(len(seeds))
        print(
            f"{name}: {chosen[0]} is better than {search} on {(gained > 0).sum()} of {len(seeds)} seeds, equal on "
            f"{(gained == 0).sum()}, by {gained.mean():.4f} on average (standard error {error:.4f})",
            flush=True,
        )


SEARCHES = ("tpe", "random", "bayesian", "optuna")
PROBLEMS = {"made-up": made_up, "digits": digits}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--search", choices=SEARCHES, nargs="+", default=SEARCHES, help="the first against the others")
    parser.add_argument("--problem", choices=list(PROBLEMS), nargs="+", default=list(PROBLEMS))
    chosen = parser.parse_args()
    for name in chosen.problem:
        compare(name, PROBLEMS[name](), range(chosen.seeds), chosen.search)
