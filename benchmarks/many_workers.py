"""How many workers one parent can feed: trials that sleep for their duration, on 1, 8, 64 and 256 workers.

python benchmarks/many_workers.py --seconds 10 --rounds 4

Efficiency is the workers' time spent in trials by all their time; the parent asks, composes, records and tells as ever.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mnist_exp.config.compose import compose
from mnist_exp.config.schema import Tracking
from mnist_exp.sweep.display import SweepDisplay
from mnist_exp.sweep.search import search
from mnist_exp.sweep.study import check_settings, define_study
from mnist_exp.sweep.trial import Job, Outcome
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.sweep_run import SweepRun


class Sleepers(ThreadPoolExecutor):
    """Threads in place of workers."""

    retry_alone, max_deaths = False, 3

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.width = width

    def refresh(self) -> None:
        pass

    def kill(self, future: Future) -> None:
        pass


class Silent(SweepDisplay):
    """Says nothing."""

    def say(self, label: str, text: str) -> None:
        pass


def main(widths: list[int], seconds: float, rounds: int, samplers: list[str]) -> None:
    swept = [
        "model.dropout=interval(0,0.5)", "training.batch_size=32,64,128", "optimizer=adam,sgd",
        "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))",
    ]  # fmt: skip

    def sleep(job: Job) -> Outcome:
        time.sleep(seconds)
        score = -abs(job.config.values["model"]["dropout"] - 0.2)
        return Outcome(score=score, curve=(score,))

    for sampler in samplers:
        for width in widths:
            with tempfile.TemporaryDirectory() as folder, Sleepers(width) as executor:
                trials = width * rounds
                fixed = [f"tracking.folder={folder}", f"sweep.max_trials={trials}", f"sweep.sampler={sampler}"]
                composed = replace(compose(fixed), overrides=(*fixed, *swept))
                study, tracking = define_study(composed), check_settings(composed).settings(Tracking)
                record = SweepRun.create(connect(tracking), "workers", "workers", study.to_record())
                begun, used = time.perf_counter(), time.process_time()
                search(study, record, tracking, executor, Silent(), sleep)
                wall, parent = time.perf_counter() - begun, (time.process_time() - used) / trials
                print(
                    f"{sampler}, {width} workers, {trials} trials of {seconds:g} s: efficiency "
                    f"{trials * seconds / width / wall:.1%}, the parent's time a trial {1000 * parent:.0f} ms, enough "
                    f"for {0.9 * seconds / parent:.0f} workers",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=4, help="trials of each worker")
    parser.add_argument("--sampler", choices=["random", "tpe"], nargs="+", default=["random", "tpe"])
    chosen = parser.parse_args()
    main(chosen.workers, chosen.seconds, chosen.rounds, chosen.sampler)
