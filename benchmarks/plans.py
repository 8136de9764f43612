"""The time that a plan predicts for a sweep, and the time that the sweep takes, for five sweeps.

python benchmarks/plans.py mnist.npz

Each sweep is planned in a new folder, where a short training is all that the plan knows; then it runs; then it is
planned again, from the trials in the store. What counts is the time from the start of the first trial to the end of the
last.
"""

import argparse
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

RATE = "optimizer.learning_rate=tag(log,interval(1e-4,1e-2))"
TWO = ["executor=local", "executor.workers=2"]
SWEEPS = {
    "digits, random, 30 trials": [RATE, "model.dropout=interval(0,0.5)", "sweep.max_trials=30", "sweep.sampler=random"],
    "sweeps=optimizers, digits, two workers": ["sweeps=optimizers", *TWO],
    "dense, every trial to its end": ["MNIST", RATE, "training.epochs=5", "sweep.max_trials=12", "sweep.pruner=off"],
    "sweeps=mlp, asha, two workers": ["MNIST", "sweeps=mlp", *TWO],
    "sweeps=cnn, asha, two workers": ["MNIST", "sweeps=cnn", *TWO],
}
UNITS = {"s": 1, "min": 60, "h": 3600}


def start(folder: str, arguments: list[str]) -> str:
    command = [sys.executable, "-m", "mnist_exp", "-m", *arguments]
    environment = os.environ | {"COLUMNS": "200", "XDG_CACHE_HOME": f"{folder}/cache"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def planned(folder: str, arguments: list[str]) -> float:
    """Seconds, as the plan prints them."""
    found = re.search(r"about ([\d.]+) (s|min|h) for the trials", start(folder, [*arguments, "sweep.plan=true"]))
    assert found
    return float(found[1]) * UNITS[found[2]]


def taken(folder: str) -> float:
    query = """SELECT MAX(end_time) - MIN(start_time) FROM runs JOIN tags USING (run_uuid)
               WHERE tags.key = 'kind' AND tags.value = 'trial'"""
    with closing(sqlite3.connect(Path(folder, "mlruns", "mlflow.db"))) as store:
        return store.execute(query).fetchone()[0] / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="MNIST as npz")
    mnist = ["dataset=mnist", f"dataset.path={Path(parser.parse_args().path).resolve()}"]
    for name, given in SWEEPS.items():
        arguments = [*given[1:], *mnist] if given[0] == "MNIST" else given
        with tempfile.TemporaryDirectory() as folder:
            probed = planned(folder, arguments)
            start(folder, arguments)
            known, seconds = planned(folder, arguments), taken(folder)
        print(
            f"{name}: {seconds:.0f} s; planned {probed:.0f} s ({probed / seconds - 1:+.0%}) by a short training, "
            f"{known:.0f} s ({known / seconds - 1:+.0%}) by the store",
            flush=True,
        )


if __name__ == "__main__":
    main()
