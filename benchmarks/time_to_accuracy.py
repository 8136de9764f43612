"""Seconds until a sweep has found a net as good as the best of KerasTuner's RandomSearch, on real MNIST.

pip install -e ".[bench]" && python benchmarks/time_to_accuracy.py mnist.npz --seeds 3

For each seed, KerasTuner's RandomSearch runs 40 trials of 10 epochs (`--net conv`: 20 trials of 4). The best validation
accuracy after any epoch of it is the goal. Then the others search until one of their epochs reaches it, for at most as
long as that sweep took: KerasTuner's Hyperband, a loop with Optuna's TPE and its Hyperband pruner, and this package
with two workers, everything tracked. Time begins when the search begins, in a process that has trained nothing yet. All
search the same space, train on the same 48,000 images and are validated on the same 12,000.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from sweep_speed import data, plain_net

BUDGET = {"dense": (40, 10), "conv": (20, 4)}  # trials and epochs of RandomSearch
WIDTHS = ((64,), (128,), (256,), (512,), (128, 64), (256, 128), (512, 256))
BLOCKS = ((16, 32), (32, 64))
BATCHES = {"dense": (32, 64, 128, 256), "conv": (64, 128)}


class Reached(BaseException):
    """The goal was reached, or the time is over."""


class Clock:
    """The best accuracy so far, and when it was reached."""

    def __init__(self, goal: float, limit: float) -> None:
        self.goal, self.limit, self.begun = goal, limit, time.perf_counter()
        self.best, self.when, self.epochs = 0.0, 0.0, 0

    def tell(self, accuracy: float) -> None:
        self.epochs += 1
        now = time.perf_counter() - self.begun
        if accuracy > self.best:
            self.best, self.when = accuracy, now
        if self.best >= self.goal or now > self.limit:
            raise Reached

    def callback(self):
        import keras

        return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self.tell(logs["val_accuracy"]))


def keras_tuner(path: str, net: str, seed: int, clock: Clock, hyperband: bool) -> None:
    """KerasTuner with a batch size that is searched, too. https://keras.io/keras_tuner/getting_started/"""
    import keras_tuner as kt

    train, validation = data(path)
    trials, epochs = BUDGET[net]
    shapes = WIDTHS if net == "dense" else BLOCKS

    class Net(kt.HyperModel):
        def build(self, hp):
            activation = hp.Choice("activation", ["relu", "gelu", "tanh"]) if net == "dense" else "relu"
            return plain_net(
                net, shapes[hp.Choice("shape", list(range(len(shapes))))],
                hp.Float("rate", 1e-4, 1e-2, sampling="log"), hp.Float("dropout", 0, 0.5), activation,
            )  # fmt: skip

        def fit(self, hp, model, *args, **kwargs):
            return model.fit(*args, batch_size=hp.Choice("batch", list(BATCHES[net])), **kwargs)

    with tempfile.TemporaryDirectory() as folder:
        keys = {"objective": "val_accuracy", "directory": folder, "seed": 1000 * seed + 1}
        if hyperband:
            tuner = kt.Hyperband(Net(), max_epochs=epochs, hyperband_iterations=100, **keys)
        else:
            tuner = kt.RandomSearch(Net(), max_trials=trials, **keys)
        given = {"epochs": epochs, "validation_data": validation, "verbose": 0, "callbacks": [clock.callback()]}
        clock.begun = time.perf_counter()
        tuner.search(*train, **given)


def optuna_loop(path: str, net: str, seed: int, clock: Clock) -> None:
    """Optuna's Keras example with TPE and the Hyperband pruner.

    https://github.com/optuna/optuna-examples/blob/main/keras/keras_integration.py
    """
    import keras
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train, validation = data(path)
    epochs = BUDGET[net][1]
    shapes = WIDTHS if net == "dense" else BLOCKS

    def objective(trial):
        keras.backend.clear_session()
        shape = shapes[trial.suggest_categorical("shape", range(len(shapes)))]
        activation = trial.suggest_categorical("activation", ["relu", "gelu", "tanh"]) if net == "dense" else "relu"
        rate, dropout = trial.suggest_float("rate", 1e-4, 1e-2, log=True), trial.suggest_float("dropout", 0, 0.5)
        batch = trial.suggest_categorical("batch", BATCHES[net])
        model = plain_net(net, shape, rate, dropout, activation)

        def report(epoch, logs):
            trial.report(logs["val_accuracy"], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        callbacks = [clock.callback(), keras.callbacks.LambdaCallback(on_epoch_end=report)]
        fitted = model.fit(
            *train, epochs=epochs, batch_size=batch, validation_data=validation, verbose=0, callbacks=callbacks
        )
        return fitted.history["val_accuracy"][-1]

    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner)
    clock.begun = time.perf_counter()
    study.optimize(objective)


def ours(path: str, net: str, seed: int, clock: Clock) -> None:
    """The engine behind -m on two workers. The programs of earlier runs are not used: its cache is a new folder."""
    from mnist_exp.config.compose import compose
    from mnist_exp.config.schema import Tracking
    from mnist_exp.sweep.display import SweepDisplay
    from mnist_exp.sweep.executors.local import Local
    from mnist_exp.sweep.search import search
    from mnist_exp.sweep.study import check_settings, define_study
    from mnist_exp.tracking.store import connect
    from mnist_exp.tracking.sweep_run import SweepRun

    fixed = [
        "model=mlp" if net == "dense" else "model=cnn", "dataset=mnist", f"dataset.path={path}",
        "dataset.validation=12000", "dataset.method=tail", f"training.epochs={BUDGET[net][1]}",
        "sweep.max_trials=1000", f"sweep.seed={seed}",
    ]  # fmt: skip
    batches = ",".join(map(str, BATCHES[net]))
    swept = ["optimizer.learning_rate=tag(log,interval(1e-4,1e-2))", f"training.batch_size={batches}"]
    if net == "dense":
        widths = ",".join(str(list(one)).replace(" ", "") for one in WIDTHS)
        swept += [f"model.widths={widths}", "model.dropout=interval(0,0.5)", "model.activation=relu,gelu,tanh"]
    else:
        blocks = ",".join(str([[filters] for filters in one]).replace(" ", "") for one in BLOCKS)
        fixed += ["model.dense=[64]", "model.batch_norm=false", "model.padding=valid", "model.block_dropout=0.0"]
        swept += [f"model.blocks=choice({blocks})", "model.dense_dropout=interval(0,0.5)"]

    class Watching(SweepDisplay):
        """Hears of the trials that have ended, with their best epoch."""

        def say(self, label: str, text: str) -> None:
            pass

        def end(self, trial, note: str = "") -> None:
            super().end(trial, note)
            clock.epochs += max(0, trial.epochs - 1)
            clock.tell(max(record.curve(trial.run_id, "val/accuracy"), default=0.0))  # as the others: of any epoch

    with tempfile.TemporaryDirectory() as folder:
        composed = replace(compose([*fixed, f"tracking.folder={folder}"]), overrides=(*fixed, *swept))
        tracking, study = check_settings(composed).settings(Tracking), define_study(composed)
        with Local(2) as executor:
            record = SweepRun.create(connect(tracking), "time", "time", study.to_record())
            clock.begun = time.perf_counter()
            search(study, record, tracking, executor, Watching())


CONTENDERS: dict[str, Callable[[str, str, int, Clock], None]] = {
    "random": lambda *given: keras_tuner(*given, hyperband=False),
    "ours": ours,
    "hyperband": lambda *given: keras_tuner(*given, hyperband=True),
    "optuna": optuna_loop,
}


def measured(contender: str, chosen: argparse.Namespace, seed: int, goal: float, limit: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, chosen.path, "--net", chosen.net, "--contender", contender]
        command += ["--seed", str(seed), "--goal", str(goal), "--limit", str(limit)]
        environment = os.environ | {"XDG_CACHE_HOME": cache}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{contender}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="MNIST as npz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed, to share the work among several calls")
    parser.add_argument("--net", choices=list(BUDGET), default="dense")
    parser.add_argument("--contender", choices=list(CONTENDERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--goal", type=float, default=2.0)
    parser.add_argument("--limit", type=float, default=float("inf"))
    chosen = parser.parse_args()
    chosen.path = str(Path(chosen.path).resolve())
    if chosen.contender:
        clock = Clock(chosen.goal, chosen.limit)
        with suppress(Reached):
            CONTENDERS[chosen.contender](chosen.path, chosen.net, chosen.seed, clock)
        whole = time.perf_counter() - clock.begun
        print(json.dumps({"best": clock.best, "when": clock.when, "whole": whole, "epochs": clock.epochs}))
        return
    faster: dict[str, list[float]] = {name: [] for name in ("random", "hyperband", "optuna")}
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        random = measured("random", chosen, seed, 2.0, float("inf"))
        goal, limit = random["best"], random["whole"]
        print(f"seed {seed}: RandomSearch {goal:.2%} in {limit:.0f} s, first at {random['when']:.0f} s", flush=True)
        found = {name: measured(name, chosen, seed, goal, limit) for name in ("ours", "hyperband", "optuna")}
        for name, one in found.items():
            reached = "reached" if one["best"] >= goal else f"not reached, {one['best']:.2%}"
            print(f"seed {seed}: {name} {one['whole']:.0f} s, {one['epochs']:.0f} epochs, {reached}", flush=True)
        found["random"] = random
        for name, ratios in faster.items():
            ratios.append(found[name]["whole"] / found["ours"]["whole"])
    for name, ratios in faster.items():
        shown = ", ".join(f"{ratio:.1f}" for ratio in ratios)
        print(f"{chosen.net}: {statistics.median(ratios):.1f} times faster than {name} ({shown})")


if __name__ == "__main__":
    main()
