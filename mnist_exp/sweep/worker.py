"""Runs one trial, on the worker that the executor chose."""

import functools
import gc
import shutil
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from mnist_exp import experiment
from mnist_exp.config.check import check
from mnist_exp.config.schema import Tracking
from mnist_exp.data.load import load_splits
from mnist_exp.data.splits import Splits
from mnist_exp.errors import DataError, TrainingError
from mnist_exp.experiment import Listener, Result
from mnist_exp.log import chatter_in_log
from mnist_exp.sweep.trial import Failure, Job, Outcome
from mnist_exp.tracking import log_run as recording
from mnist_exp.tracking.active_run import Clock
from mnist_exp.tracking.store import store_of

if TYPE_CHECKING:
    from mnist_exp.tracking.mlflow_run import MlflowRecord
    from mnist_exp.tracking.store import Store

CHECKPOINT = "checkpoint"
# Called between batches: on another machine a trial may run longer than the sweep that waits for it.
is_cancelled: ContextVar[Callable[[], bool]] = ContextVar("is_cancelled", default=lambda: False)
# Called when a trial begins, after the imports: its time counts from then on.
on_start: ContextVar[Callable[[], None]] = ContextVar("on_start", default=lambda: None)
_store = functools.lru_cache(maxsize=1)(store_of)  # opened once a worker


class Cancelled(BaseException):
    """The trial was cancelled. Its run stays KILLED and is not counted."""


class TrialListener(Listener):
    """Watches one training, and ends it if the trial is cancelled, takes too long or is worse than the median."""

    def __init__(self, job: Job, deadline: float | None) -> None:
        self.job, self.deadline = job, deadline
        self.best: float | None = None
        self.pruned = False

    def step(self, epoch: int, step: int, steps: int) -> None:
        if is_cancelled.get()():
            raise Cancelled
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TrainingError(f"a trial may take sweep.trial_timeout={self.job.seconds:g} s, but took longer")

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        objective, medians = self.job.objective, self.job.medians
        value = metrics.get(objective.keras_name)
        if value is not None:
            if self.best is None or objective.is_better(value, self.best):
                self.best = value
            is_known = self.job.pruning_epochs < epoch <= len(medians)
            self.pruned = is_known and objective.is_better(medians[epoch - 1], self.best)
        return self.pruned


def run_trial(job: Job) -> Outcome:
    """Runs a trial to its end. An exception is recorded with its run and returned as the trial's failure."""
    try:
        return _run_trial(job)
    except Exception as error:  # whatever a net of the user's own raises fails this trial, not the sweep
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        return Outcome(failure=Failure(type(error).__name__, place, " ".join(str(error).split())))


def _run_trial(job: Job) -> Outcome:
    import keras

    from mnist_exp.tracking.mlflow_run import MlflowRecord
    from mnist_exp.tracking.store import patiently

    cfg = OmegaConf.create(job.config)
    on_start.get()()
    deadline = None if job.seconds is None else time.monotonic() + job.seconds
    with patiently():
        store, folder = _store(Tracking(**cfg.tracking)), Path(cfg.tracking.folder)
    _settle()
    keras.backend.clear_session()  # the model of the trial before
    record = MlflowRecord.adopt(store, folder, job.run_id, job.name)
    with chatter_in_log() as chatter, recording.ended(record):
        chatter.move_to(record.log)
        check(cfg)  # no pair of values was tried before
        clock = Clock()
        with clock("data"):
            splits = replace(load_splits(cfg.dataset, cache=True), test=None)  # a trial cannot use the test set
        if job.digest not in (None, splits.digest):
            raise DataError(f"a sweep needs the data it began with, digest {job.digest}, but got {splits.digest}")
        if job.executions > 1:
            outcome = _executions(job, cfg, record, store, folder, splits, clock, deadline)
        else:
            watch = TrialListener(job, deadline)
            if job.continues:
                _fetch(store, job.continues, record.checkpoints)
            result = experiment.recorded(record, cfg, job.choices, splits, watch, clock)
            if job.keeps_checkpoint:
                shutil.copytree(record.checkpoints, record.artifacts / CHECKPOINT)
            outcome = _outcome(job, [(result, watch)], clock)
        _record(record, outcome)
    return outcome


def _executions(
    job: Job,
    cfg: DictConfig,
    record: "MlflowRecord",
    store: "Store",
    folder: Path,
    splits: Splits,
    clock: Clock,
    deadline: float | None,
) -> Outcome:
    """Trains the trial with one seed after another, each in a run nested under the trial's."""
    recording.start(record, cfg, job.choices, splits)
    done: list[tuple[Result, TrialListener]] = []
    tags = {"kind": "execution", "mlflow.parentRunId": job.run_id}
    for seed in range(cfg.seed, cfg.seed + job.executions):
        watch = TrialListener(job, deadline)
        child = type(record).create_in(store, folder, cfg.tracking.experiment, f"{job.name}-s{seed}", tags)
        with recording.ended(child):
            seeded = OmegaConf.merge(cfg, {"seed": seed})
            assert isinstance(seeded, DictConfig)
            done.append((experiment.recorded(child, seeded, job.choices, splits, watch, clock), watch))
        if watch.pruned:
            break
    means = {key: statistics.fmean(result.metrics[key] for result, _ in done) for key in done[0][0].metrics}
    record.metrics(means, step=0)
    best, _ = job.objective.best(done, lambda one: _score(job, *one))
    record.tags({"model_run": str(best.run_id)})
    return _outcome(job, done, clock)


def _outcome(job: Job, done: Sequence[tuple[Result, TrialListener]], clock: Clock) -> Outcome:
    scores = [_score(job, result, watch) for result, watch in done]
    return Outcome(
        score=statistics.fmean(scores),
        spread=statistics.stdev(scores) if len(scores) > 1 else None,
        pruned=done[-1][1].pruned,
        curve=tuple(map(statistics.fmean, zip(*(_curve(job, result) for result, _ in done), strict=False))),
        seconds=clock.seconds,
    )


def _score(job: Job, result: Result, watch: TrialListener) -> float:
    """The objective of the weights that were kept; of a pruned training its best epoch."""
    if watch.pruned:
        return job.objective.best(_curve(job, result), lambda value: value)
    return result.metrics[job.objective.metric]


def _curve(job: Job, result: Result) -> list[float]:
    """The objective epoch by epoch, with the epochs of a continued checkpoint."""
    return result.history.get(job.objective.keras_name, [])


def _record(record: "MlflowRecord", outcome: Outcome) -> None:
    """Logs the score before the run ends: a finished run without a score is not counted."""
    assert outcome.score is not None
    spread = {} if outcome.spread is None else {"score_spread": outcome.spread}
    record.metrics({"score": outcome.score, **spread}, step=0)
    record.tags({"epochs": str(len(outcome.curve)), **({"pruned": "true"} if outcome.pruned else {})})


@functools.cache
def _settle() -> None:
    """Takes the half million objects of the libraries, which stay until the worker ends, from the garbage collector."""
    gc.collect()
    gc.freeze()


def _fetch(store: "Store", run_id: str, to: Path) -> None:
    """Fetches the checkpoint of another trial, which this one continues."""
    from mnist_exp.tracking.store import patiently

    with patiently():
        found = Path(store.client.download_artifacts(run_id, CHECKPOINT))
    shutil.copytree(found, to, dirs_exist_ok=True)
