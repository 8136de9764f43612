"""Trials a minute: our sweep on two workers, KerasTuner's RandomSearch and an Optuna loop around plain Keras, in turn.

pip install -e ".[bench]" && python benchmarks/sweep_speed.py mnist.npz --rounds 3 --net dense

Each contender is a process of its own, warmed up by a trial; counted is from the first submit to the last tell. Dense:
one hidden layer of 128, batch 32, 5 epochs on 48,000 images; conv: 32 and 64 filters, batch 128, 2 epochs. Learning
rate and dropout are drawn, and every trial trains to its end.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
NETS = {
    "dense": {"epochs": 5, "batch": 32, "trials": 16, "shape": (128,)},
    "conv": {"epochs": 2, "batch": 128, "trials": 4, "shape": (32, 64)},
}


def data(path: str):
    import numpy as np

    with np.load(path) as arrays:
        images, labels = arrays["x_train"], arrays["y_train"]
    return (images[:48000], labels[:48000]), (images[48000:], labels[48000:])


def plain_net(net: str, shape: tuple[int, ...], rate: float, dropout: float, activation: str = "relu"):
    """A net as the guides of Keras build it. shape: widths of the dense layers, or filters of the convolutions."""
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input((28, 28)), layers.Rescaling(1 / 255)])
    if net == "dense":
        model.add(layers.Flatten())
        for width in shape:
            model.add(layers.Dense(width, activation=activation))
            model.add(layers.Dropout(dropout))
    else:
        model.add(layers.Reshape((28, 28, 1)))
        for filters in shape:
            model.add(layers.Conv2D(filters, 3, activation="relu"))
            model.add(layers.MaxPooling2D())
        model.add(layers.Flatten())
        model.add(layers.Dense(64, activation="relu"))
        model.add(layers.Dropout(dropout))
    model.add(layers.Dense(10, activation="softmax"))
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def keras_tuner(path: str, net: str, trials: int) -> float:
    """As KerasTuner's getting-started guide has it."""
    import keras_tuner as kt

    train, validation = data(path)

    def build(hp):
        return plain_net(
            net, NETS[net]["shape"], hp.Float("rate", 1e-4, 1e-2, sampling="log"), hp.Float("dropout", 0, 0.5)
        )

    def search(count: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            tuner = kt.RandomSearch(build, "val_accuracy", max_trials=count, directory=folder, seed=1)
            begun = time.perf_counter()
            keys = {"epochs": NETS[net]["epochs"], "batch_size": NETS[net]["batch"], "validation_data": validation}
            tuner.search(*train, **keys, verbose=0)
            return time.perf_counter() - begun

    search(1)
    return search(trials)


def optuna_loop(path: str, net: str, trials: int) -> float:
    """As Optuna's Keras example has it."""
    import keras
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train, validation = data(path)

    def objective(trial):
        keras.backend.clear_session()
        rate, dropout = trial.suggest_float("rate", 1e-4, 1e-2, log=True), trial.suggest_float("dropout", 0, 0.5)
        model = plain_net(net, NETS[net]["shape"], rate, dropout)
        keys = {"epochs": NETS[net]["epochs"], "batch_size": NETS[net]["batch"], "verbose": 0}
        model.fit(*train, validation_data=validation, **keys)
        return model.evaluate(*validation, verbose=0)[1]

    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=1)
    begun = time.perf_counter()
    study.optimize(objective, n_trials=trials)
    return time.perf_counter() - begun


def ours(path: str, net: str, trials: int) -> float:
    """The engine behind -m, two workers, everything tracked."""
    from mnist_exp.config.compose import compose
    from mnist_exp.config.schema import Tracking
    from mnist_exp.sweep.display import SweepDisplay
    from mnist_exp.sweep.executors.local import Local
    from mnist_exp.sweep.search import search
    from mnist_exp.sweep.study import check_settings, define_study
    from mnist_exp.tracking.store import connect
    from mnist_exp.tracking.sweep_run import SweepRun

    nets = {"dense": ["model=mlp", "model.widths=[128]"], "conv": ["model=cnn"]}
    fixed = [
        *nets[net], "dataset=mnist", f"dataset.path={path}", "dataset.validation=0.2", "dataset.method=tail",
        f"training.epochs={NETS[net]['epochs']}", f"training.batch_size={NETS[net]['batch']}", "sweep.sampler=random",
        f"sweep.max_trials={trials}", "sweep.pruner=off",
    ]  # fmt: skip
    dropout = "model.dropout" if net == "dense" else "model.dense_dropout"
    swept = ["optimizer.learning_rate=tag(log,interval(1e-4,1e-2))", f"{dropout}=interval(0,0.5)"]
    with tempfile.TemporaryDirectory() as folder:
        composed = replace(compose([*fixed, f"tracking.folder={folder}"]), overrides=(*fixed, *swept))
        tracking, study = check_settings(composed).settings(Tracking), define_study(composed)
        store, executor = connect(tracking), Local(2)

        def run(most: int) -> float:
            given = replace(study, settings=study.settings.model_copy(update={"max_trials": most}))
            record = SweepRun.create(store, "speed", "speed", given.to_record())
            begun = time.perf_counter()
            search(given, record, tracking, executor, SweepDisplay())
            return time.perf_counter() - begun

        run(2)
        seconds = run(trials)
        executor.shutdown()
    return seconds


CONTENDERS = {"ours": ours, "keras_tuner": keras_tuner, "optuna": optuna_loop}


def measured(contender: str, path: str, net: str) -> tuple[float, float]:
    """Seconds between first submit and last tell, and of the whole process."""
    begun = time.perf_counter()
    command = [sys.executable, __file__, path, "--net", net, "--contender", contender]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - begun


def compare(path: str, net: str, rounds: int) -> None:
    trials = NETS[net]["trials"]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name in CONTENDERS:
            times[name].append(measured(name, path, net))
            warm, whole = times[name][-1]
            print(f"{net}, {name}: {60 * trials / warm:.1f} trials a minute, process {whole:.0f} s", flush=True)
    for name in ("keras_tuner", "optuna"):
        ratios = sorted(b[0] / a[0] for a, b in zip(times["ours"], times[name], strict=True))
        whole = statistics.median(b[1] / a[1] for a, b in zip(times["ours"], times[name], strict=True))
        print(
            f"{net}: {statistics.median(ratios):.2f} times as many trials as {name} ({ratios[0]:.2f} to "
            f"{ratios[-1]:.2f}, {rounds} rounds); whole processes {whole:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="MNIST as npz")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--net", choices=list(NETS), default="dense")
    parser.add_argument("--contender", choices=list(CONTENDERS))
    chosen = parser.parse_args()
    if chosen.contender:
        path = str(Path(chosen.path).resolve())
        print(json.dumps(CONTENDERS[chosen.contender](path, chosen.net, NETS[chosen.net]["trials"])))
    else:
        compare(chosen.path, chosen.net, chosen.rounds)
