"""What a process of executor=local costs: one that serves a single trial, against one that serves many.

python benchmarks/local_workers.py mnist.npz                           3 trials per row: seconds, processor time, memory
python benchmarks/local_workers.py mnist.npz --trials 300 --rows many  memory over 300 trials of varied widths

Every trial is a dense net of another width, as a sweep runs it: data, training, evaluation, figures, tracking. Rows:
`one` ends the process after each trial, `many` is what executor=local does, `endless` never replaces a process, and
`spawn` is `many` without the fork server, as on macOS and Windows.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import psutil

from mnist_exp.config.compose import compose
from mnist_exp.config.schema import Tracking
from mnist_exp.sweep.display import SweepDisplay
from mnist_exp.sweep.executors.local import MAX_GROWTH, Local
from mnist_exp.sweep.pruners.median import MedianPruner
from mnist_exp.sweep.recorder import TrialRecorder
from mnist_exp.sweep.samplers import create_sampler
from mnist_exp.sweep.study import check_settings, define_study
from mnist_exp.sweep.trial import Job, Outcome
from mnist_exp.sweep.worker import TrialListener, run_trial
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.sweep_run import SweepRun

ROWS = {"one": 0, "many": MAX_GROWTH, "endless": 2**60, "spawn": MAX_GROWTH}
used = 0.0  # processor seconds of this process until the end of its last trial


def timed(job: Job) -> tuple[Outcome, dict[str, float]]:
    """A trial that also returns when its first epoch ended, and what its process used."""
    global used
    first: list[float] = []
    plain = TrialListener.on_epoch

    def on_epoch(self: TrialListener, number: int, metrics: Mapping[str, float]) -> bool:
        first.append(time.time())
        return plain(self, number, metrics)

    TrialListener.on_epoch = on_epoch
    try:
        outcome = run_trial(job)
    finally:
        TrialListener.on_epoch = plain
    before, used = used, time.process_time()
    found = {"epoch": first[0], "cpu": used - before, "uss": own_memory(psutil.Process()), "pid": os.getpid()}
    return outcome, found


def own_memory(process: psutil.Process) -> int:
    """Megabytes that would be free if only this process ended."""
    return process.memory_full_info().uss // 2**20


def jobs(path: str, folder: str, trials: int, batches: int | None) -> Iterator[Job]:
    widths = ",".join(f"[{32 + 4 * number}]" for number in range(trials))
    fixed = [
        "dataset=mnist", f"dataset.path={Path(path).resolve()}", "training.epochs=1", f"tracking.folder={folder}",
        f"training.batches={batches or 'null'}", "sweep.sampler=grid",
    ]  # fmt: skip
    composed = replace(compose(fixed), overrides=(*fixed, f"model.widths={widths}"))
    tracking, study = check_settings(composed).settings(Tracking), define_study(composed)
    record = SweepRun.create(connect(tracking), "workers", "workers", study.to_record())
    recorder = TrialRecorder(study, record, tracking, MedianPruner(3), SweepDisplay())
    sampler = create_sampler(study)
    for _ in range(trials):
        yield recorder.begin(sampler.ask())


def fork_servers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]


def measure(row: str, path: str, trials: int, workers: int, batches: int | None, every: int) -> None:
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        waiting: dict[Future, float] = {}
        coming = jobs(path, folder, trials, batches)
        first = next(coming)  # data and store are loaded before the clock starts
        begun = time.time()
        with Local(workers, "spawn" if row == "spawn" else None, max_growth=ROWS[row]) as local:

            def submit(job: Job) -> None:
                waiting[local.submit(timed, job)] = time.time()

            def collect() -> None:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    submitted, (outcome, facts) = waiting.pop(future), future.result()
                    assert not outcome.failure, outcome.failure
                    found.append({**facts, "wait": facts["epoch"] - submitted})
                    if len(found) % every == 0:
                        sizes = {"parent": own_memory(psutil.Process()), "worker": found[-1]["uss"]}
                        sizes["fork server"] = sum(map(own_memory, fork_servers()))
                        said = "  ".join(f"{name} {size:5.0f} MB" for name, size in sizes.items())
                        print(f"{row:8} {len(found):4} trials  {said}", flush=True)

            for job in itertools.chain([first], coming):
                submit(job)
                if len(waiting) == workers:
                    collect()
            while waiting:
                collect()
        seconds = time.time() - begun
    waits = "  ".join(f"{one['wait']:5.2f}" for one in found[:3])
    processor = statistics.mean(one["cpu"] for one in found[workers:] or found)
    sizes = [one["uss"] for one in found]
    print(
        f"{row:8} first epoch after {waits} s  processor {processor:5.2f} s a trial  "
        f"own memory {sizes[0]:4.0f} to {max(sizes):4.0f} MB  {len({one['pid'] for one in found})} processes  "
        f"{60 * trials / seconds:.1f} trials a minute",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="MNIST as npz")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batches", type=int, help="train on this many batches only")
    parser.add_argument("--every", type=int, default=10**9, help="print the memory after this many trials")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    chosen = parser.parse_args()
    for row in chosen.rows:
        measure(row, chosen.path, chosen.trials, chosen.workers, chosen.batches, chosen.every)
