"""One trial: the run function with the values it was given, wherever the executor runs it."""

import functools
import gc
import json
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
from mnist_exp.data.splits import Splits
from mnist_exp.errors import DataError, TrainingError
from mnist_exp.experiment import Listener, Result
from mnist_exp.log import chatter_in_log
from mnist_exp.sweep.trial import Job, Outcome
from mnist_exp.tracking import Timer, tags
from mnist_exp.tracking.log_run import log_start
from mnist_exp.tracking.store import connect, long_retries
from mnist_exp.tracking.stored_run import SCORE, SPREAD, download

if TYPE_CHECKING:
    from mnist_exp.tracking.mlflow_run import MlflowRun
    from mnist_exp.tracking.store import Store

CHECKPOINT = "checkpoint"
# Asked between batches, where a trial may outlive whoever waits for it: on another machine.
abandoned: ContextVar[Callable[[], bool]] = ContextVar("abandoned", default=lambda: False)
_store = functools.lru_cache(maxsize=1)(connect)  # opened once a worker


class Abandoned(BaseException):
    """Nobody waits for this trial any more; its run is left as interrupted, and counts for nothing."""


class _Watch(Listener):
    """Follows one training: whether it is worth going on, and whether it takes too long."""

    def __init__(self, job: Job, deadline: float | None) -> None:
        self.job, self.deadline = job, deadline
        self.best: float | None = None
        self.pruned = False

    def step(self, epoch: int, step: int, steps: int) -> None:
        if abandoned.get()():
            raise Abandoned
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TrainingError(f"a trial may take sweep.trial_timeout={self.job.seconds:g} s, but took longer")

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        value = metrics.get(_key(self.job))
        if value is not None:
            self.best = value if self.best is None else _better(self.job, self.best, value)
            self.pruned = epoch > self.job.pruning_epochs and self._is_poor(epoch, self.best)
        return self.pruned

    def _is_poor(self, epoch: int, best: float) -> bool:
        if epoch > len(self.job.medians):
            return False
        median = self.job.medians[epoch - 1]
        return best != median and _better(self.job, best, median) == median


def work(job: Job) -> Outcome:
    """Runs a trial to its end; an exception is recorded with its run and returned as its error."""
    try:
        return _work(job)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return Outcome(error=f"{type(error).__name__}: {' '.join(str(error).split())} ({place})")


def _work(job: Job) -> Outcome:
    import keras

    from mnist_exp.tracking.mlflow_run import MlflowRun

    cfg = OmegaConf.create(job.config)
    deadline = None if job.seconds is None else time.monotonic() + job.seconds
    with long_retries():
        store, folder = _store(Tracking(**cfg.tracking)), Path(cfg.tracking.folder)
    _settle()
    keras.backend.clear_session()  # the model of the trial before
    record = MlflowRun.take_over_run(store, folder, job.run_id, job.name)
    with chatter_in_log() as chatter, record:
        chatter.move_to(record.log)
        check(cfg)  # no pair of values was tried before
        with record.timer("data"):
            splits = _data(json.dumps(OmegaConf.to_container(cfg.dataset, resolve=True)))
        if job.digest not in (None, splits.digest):
            raise DataError(f"a sweep needs the data it began with, digest {job.digest}, but got {splits.digest}")
        if job.executions > 1:
            outcome = _executions(job, cfg, record, store, folder, splits, deadline)
        else:
            watch = _Watch(job, deadline)
            if job.continues:
                _fetch(store, job.continues, record.checkpoints)
            result = experiment.recorded(record, cfg, job.choices, splits, watch)
            if job.keeps_checkpoint:
                shutil.copytree(record.checkpoints, record.artifacts / CHECKPOINT)
            outcome = _outcome(job, [(result, watch)], record.timer)
        _record(record, outcome)
    return outcome


def _executions(
    job: Job,
    cfg: DictConfig,
    record: "MlflowRun",
    store: "Store",
    folder: Path,
    splits: Splits,
    deadline: float | None,
) -> Outcome:
    """The trial trained with one seed after another, each a run nested under its own."""
    log_start(record, cfg, job.choices, splits)
    done: list[tuple[Result, _Watch]] = []
    run_tags = {tags.KIND: "execution", tags.PARENT: job.run_id}
    for seed in range(cfg.seed, cfg.seed + job.executions):
        watch = _Watch(job, deadline)
        child = type(record).create_run(store, folder, cfg.tracking.experiment, f"{job.name}-s{seed}", run_tags)
        child.timer = record.timer
        with child:
            seeded = OmegaConf.merge(cfg, {"seed": seed})
            assert isinstance(seeded, DictConfig)
            done.append((experiment.recorded(child, seeded, job.choices, splits, watch), watch))
        if watch.pruned:
            break
    means = {key: statistics.fmean(result.metrics[key] for result, _ in done) for key in done[0][0].metrics}
    record.log_metrics(means, step=0)
    record.log_tags({tags.MODEL_RUN: str(max(done, key=lambda one: _score(job, *one) * _sign(job))[0].run_id)})
    return _outcome(job, done, record.timer)


def _outcome(job: Job, done: Sequence[tuple[Result, _Watch]], timer: Timer) -> Outcome:
    scores = [_score(job, result, watch) for result, watch in done]
    return Outcome(
        score=statistics.fmean(scores),
        spread=statistics.stdev(scores) if len(scores) > 1 else None,
        pruned=done[-1][1].pruned,
        curve=tuple(map(statistics.fmean, zip(*(_curve(job, result) for result, _ in done), strict=False))),
        seconds=timer.seconds,
    )


def _score(job: Job, result: Result, watch: _Watch) -> float:
    """The objective of the weights kept; of a pruned training the best it had."""
    if watch.pruned:
        return functools.reduce(functools.partial(_better, job), _curve(job, result))
    return result.metrics[job.objective]


def _curve(job: Job, result: Result) -> list[float]:
    """The objective epoch by epoch, those of a continued checkpoint included."""
    return result.history.get(_key(job), [])


def _key(job: Job) -> str:
    """Keras's name of the objective."""
    return job.objective.replace("/", "_")


def _better(job: Job, some: float, other: float) -> float:
    return max(some, other) if job.direction == "max" else min(some, other)


def _sign(job: Job) -> int:
    return 1 if job.direction == "max" else -1


def _record(record: "MlflowRun", outcome: Outcome) -> None:
    """The score, in the store before the run ends: a finished run without one is not counted."""
    assert outcome.score is not None
    spread = {} if outcome.spread is None else {SPREAD: outcome.spread}
    record.log_metrics({SCORE: outcome.score, **spread}, step=0)
    record.log_tags({tags.EPOCHS: str(len(outcome.curve)), **({tags.PRUNED: "true"} if outcome.pruned else {})})


@functools.cache
def _settle() -> None:
    """Spares the garbage collector the half million objects of the libraries, which stay until the worker ends."""
    gc.collect()
    gc.freeze()


@functools.lru_cache(maxsize=2)
def _data(section: str) -> Splits:
    """Loaded once a worker. Without its test set: a trial has no use for it."""
    return replace(experiment.load_data(OmegaConf.create(json.loads(section))), test=None)


def _fetch(store: "Store", run_id: str, to: Path) -> None:
    """The checkpoint of another trial, to go on from."""
    with long_retries():
        found = download(store, run_id, CHECKPOINT)
    shutil.copytree(found, to, dirs_exist_ok=True)
