"""What the parent of a sweep spends on a trial, from the first to the thousandth, and whether its memory grows.

python benchmarks/thousand_trials.py --trials 1000 --sampler tpe

The trials train nothing; they log a score and end their run.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import psutil
from mlflow import MlflowClient
from mlflow.entities import Metric

from mnist_exp.config.compose import compose
from mnist_exp.config.schema import Tracking
from mnist_exp.sweep.display import SweepDisplay
from mnist_exp.sweep.executors.base import Inline
from mnist_exp.sweep.recorder import TrialRecorder
from mnist_exp.sweep.samplers.base import Sampler
from mnist_exp.sweep.search import search
from mnist_exp.sweep.study import check_settings, define_study
from mnist_exp.sweep.trial import Job, Outcome
from mnist_exp.sweep.trial_configs import TrialConfigs
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.sweep_run import SweepRun

SPENT: dict[str, list[float]] = defaultdict(list)


def timed(owner: type, name: str, label: str) -> None:
    """Counts the seconds of each call of a method."""
    original: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **keys: Any) -> Any:
        begun = time.perf_counter()
        try:
            return original(*args, **keys)
        finally:
            SPENT[label].append(time.perf_counter() - begun)

    setattr(owner, name, call)


class Silent(SweepDisplay):
    """Says nothing."""

    def say(self, label: str, text: str) -> None:
        pass


def main(trials: int, sampler: str) -> None:
    swept = [
        "model.dropout=interval(0,0.5)", "training.batch_size=32,64,128", "optimizer=adam,sgd",
        "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))",
    ]  # fmt: skip
    for owner, name, label in (
        (Sampler, "ask", "ask"),
        (Sampler, "tell", "tell"),
        (TrialConfigs, "of", "compose"),
        (TrialRecorder, "begin", "begin"),
        (TrialRecorder, "ended", "end"),
    ):
        timed(owner, name, label)
    with tempfile.TemporaryDirectory() as folder:
        fixed = [f"tracking.folder={folder}", f"sweep.max_trials={trials}", f"sweep.sampler={sampler}"]
        composed = replace(compose(fixed), overrides=(*fixed, *swept))
        study, tracking = define_study(composed), check_settings(composed).settings(Tracking)
        store = connect(tracking)
        client: MlflowClient = store.client
        starts: list[float] = []
        memory: list[float] = []

        def trivial(job: Job) -> Outcome:
            starts.append(time.perf_counter())
            memory.append(psutil.Process().memory_info().rss / 2**20)
            score = -abs(job.config.values["model"]["dropout"] - 0.2)
            client.log_batch(job.run_id, [Metric("score", score, int(time.time() * 1000), 0)])
            client.set_terminated(job.run_id)
            return Outcome(score=score, curve=(score,))

        record = SweepRun.create(store, "thousand", "thousand", study.to_record())
        search(study, record, tracking, Inline(), Silent(), trivial)
    whole = [after - before for before, after in pairwise(starts)]
    edge = max(10, trials // 10)
    first, last = (1000 * statistics.median(part) for part in (whole[:edge], whole[-edge:]))
    print(f"{sampler}, {trials} trials: {first:.0f} ms each at first, {last:.0f} at last, {last / first:.2f} times")
    print(f"memory {memory[edge]:.0f} MB after {edge} trials, {memory[-1]:.0f} at the end")
    own = {label: 1000 * statistics.mean(spent) for label, spent in SPENT.items()}
    beside = own["begin"] - own["compose"] + own["end"]
    print(f"ask {own['ask']:.1f}, compose {own['compose']:.1f}, tell {own['tell']:.1f} ms; tracking {beside:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--sampler", choices=["random", "tpe"], default="tpe")
    chosen = parser.parse_args()
    main(chosen.trials, chosen.sampler)
