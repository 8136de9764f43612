"""Seconds of a trial, everything tracked: this version and another one, in turn, on one core with one thread.

python benchmarks/trial.py mnist.npz --against OTHER/bin/python --rounds 3

One hidden layer, dropout, Adam, batch 32, 5 epochs on 48,000 images; the other version is a virtual environment in
which it is installed. Each row is a sweep of its own in a new folder: `seen` varies learning rate and dropout, `disk`
the width too, with the programs of an earlier sweep in the cache on disk, and `new` the same with an empty cache. A
trial's time is that of its run in the store; the first trial of a sweep is not counted.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

FIXED = [
    "model=mlp", "dataset=mnist", "dataset.validation=0.2", "dataset.method=tail", "training.epochs=5",
    "training.batch_size=32", "sweep.sampler=random", "sweep.pruner=off",
]  # fmt: skip
DRAWN = ["optimizer.learning_rate=tag(log,interval(1e-4,1e-2))", "model.dropout=interval(0.1,0.5)"]
READ = """
import json, sys, mlflow
mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
runs = mlflow.MlflowClient().search_runs(["1"], "tags.kind = 'trial'", order_by=["attributes.start_time"])
print(json.dumps([[(run.info.end_time - run.info.start_time) / 1000, run.data.metrics] for run in runs]))
"""


def widths(trials: int) -> str:
    return f"model.widths={','.join(f'[{128 + number}]' for number in range(trials))}"


@dataclass(frozen=True)
class Measured:
    """Of one sweep: seconds of a trial, parts of it, processor seconds of all, bytes of a trial in the store."""

    seconds: float
    parts: dict[str, float]
    processor: float
    size: float

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value:.2f}" for name, value in self.parts.items() if value >= 0.01)
        size = f"{self.size / 2**20:.2f} MB"
        return f"{self.seconds:.2f} s a trial ({parts}), {size}; the sweep {self.processor:.0f} processor s"


def sweep(python: str, path: str, trials: int, space: list[str], cache: Path) -> Measured:
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"TF_NUM_INTEROP_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        given = [*FIXED, f"dataset.path={path}", f"sweep.max_trials={trials}", *space]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [python, "-m", "mnist_exp", "-m", *given],
            cwd=folder,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        read = subprocess.run([python, "-c", READ], cwd=folder, env=environment, check=True, capture_output=True)
        files = [file for file in Path(folder, "mlruns", "artifacts").rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / trials
    found = json.loads(read.stdout.splitlines()[-1])[1:]
    parts: dict[str, list[float]] = {}
    for _, metrics in found:
        for name, value in metrics.items():
            if name.startswith("wall_seconds/") and name != "wall_seconds/elapsed":
                parts.setdefault(name.removeprefix("wall_seconds/"), []).append(value)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    medians = {name: statistics.median(values) for name, values in parts.items()}
    return Measured(statistics.median(seconds for seconds, _ in found), medians, used, size)


def compare(path: str, pythons: dict[str, str], trials: int, rounds: int) -> None:
    rows = {"seen": DRAWN, "new": [*DRAWN, widths(trials)], "disk": [*DRAWN, widths(trials)]}
    measured: dict[tuple[str, str], list[Measured]] = {}
    for number in range(rounds):
        for name, python in pythons.items():
            with tempfile.TemporaryDirectory() as cache:
                for row, space in rows.items():
                    one = sweep(python, path, trials, space, Path(cache))
                    measured.setdefault((row, name), []).append(one)
                    print(f"round {number}, {row}, {name}: {one}", flush=True)
    for row in rows if len(pythons) > 1 else ():
        pairs = list(zip(*(measured[row, name] for name in pythons), strict=True))
        ratios = [ours.seconds / theirs.seconds for ours, theirs in pairs]
        bytes_ = statistics.median(ours.size / theirs.size for ours, theirs in pairs)
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{row}: {shown} of the other's time, {bytes_:.2f} of its bytes, {rounds} rounds")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="MNIST as npz")
    parser.add_argument("--against", help="the interpreter of another version")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, one core")
    others = {"other": chosen.against} if chosen.against else {}
    compare(str(Path(chosen.path).resolve()), {"ours": sys.executable, **others}, chosen.trials, chosen.rounds)
