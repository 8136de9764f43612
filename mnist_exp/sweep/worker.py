"""Runs one trial, on the worker that the executor chose."""

import functools
import gc
import math
import platform
import shutil
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp.config.check import check_values
from mnist_exp.config.own_code import digest_own_code
from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import Tracking, Training
from mnist_exp.data.load import load_splits
from mnist_exp.data.splits import Splits
from mnist_exp.errors import ConfigError, DataError, Problem, TrackingError, TrainingError, UserError
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.experiment import Result, exits_as_errors, train_and_evaluate
from mnist_exp.log import hide_library_output, log_line
from mnist_exp.sweep.constraints import find_violation
from mnist_exp.sweep.pruners import median
from mnist_exp.sweep.pruners.asha import goes_on
from mnist_exp.sweep.trial import Failure, Job, Outcome
from mnist_exp.tracking import tags
from mnist_exp.tracking.active_run import ActiveRun
from mnist_exp.tracking.log_run import log_start, metric_name
from mnist_exp.tracking.rungs import Rungs
from mnist_exp.tracking.store import Store, long_retries, open_store
from mnist_exp.tracking.stored_run import SCORE, SPREAD, download
from mnist_exp.trainer import Listener
from mnist_exp.training.sizes import sizes_of

if TYPE_CHECKING:
    import keras

    from mnist_exp.tracking.mlflow_run import MlflowRun

CHECKPOINT = "checkpoint"
open_once = functools.lru_cache(maxsize=1)(open_store)  # a worker keeps its connection to the store
# Called between batches: on another machine a trial may run longer than the sweep that waits for it.
is_cancelled: ContextVar[Callable[[], bool]] = ContextVar("is_cancelled", default=lambda: False)
# Called when a trial begins, after the imports: its time counts from then on.
on_start: ContextVar[Callable[[], None]] = ContextVar("on_start", default=lambda: None)


class Cancelled(BaseException):
    """The trial was cancelled. Its run stays KILLED and is not counted."""


class InfeasibleError(Exception):
    """The net of a trial violates a constraint, so it is not trained."""


class TrialListener(Listener):
    """Watches one training, and ends it if the trial is cancelled, takes too long or is worse than others.

    rungs: those of the sweep; None if this training is not compared there. Of data in folds the first one is compared
    epoch by epoch, and then the answers of all folds so far at the end of each.
    """

    def __init__(self, job: Job, deadline: float | None, rungs: Rungs | None = None) -> None:
        self.job, self.deadline, self.rungs = job, deadline, rungs
        self.best: float | None = None
        self.pruned = False
        self.fold, self.folds = 1, 0  # the fold in training; how many came to their end
        self.epochs = 0  # that were trained here, without those of a continued checkpoint
        self.sizes: dict[str, float] = {}  # of the net, if a constraint asks for them

    def on_model(self, model: "keras.Model", config: RunConfig) -> None:
        of_the_net = [constraint for constraint in self.job.constraints if constraint.is_of_the_net]
        if of_the_net:
            self.sizes = sizes_of(model, config.settings(Training).batch_size)
            if violation := find_violation(of_the_net, self.sizes):
                raise InfeasibleError(violation)

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        if is_cancelled.get()():
            raise Cancelled
        if self.deadline is not None and time.monotonic() > self.deadline:
            rule = f"must end within sweep.trial_timeout={self.job.seconds:g} s, but took longer"
            raise TrainingError(Problem("a trial", rule))

    def on_epoch(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        self.epochs += 1
        if self.fold > 1:
            return False
        objective, medians = self.job.objective, self.job.medians
        value = metrics.get(objective.keras_name)
        if value is not None:
            if self.best is None or objective.is_better(value, self.best):
                self.best = value
            is_known = self.job.pruning_epochs < epoch <= len(medians)
            self.pruned = is_known and objective.is_better(medians[epoch - 1], self.best)
            if self.rungs and epoch in self.job.rungs:
                self.pruned = not self._goes_on(self.rungs, epoch, value)
        return self.pruned

    def on_fold(self, fold: int, folds: int) -> None:
        self.fold = fold

    def on_fold_end(self, fold: int, evaluation: Evaluation) -> bool:
        if self.pruned:
            return True
        self.folds = fold
        if self.rungs and (self.job.rungs or self.job.medians):
            score = evaluation.metrics[self.job.objective.metric.removeprefix("val/")]
            self.pruned = not self._goes_on(self.rungs, f"fold_{fold}", score)
        return self.pruned

    def _goes_on(self, rungs: Rungs, rung: int | str, value: float) -> bool:
        """Whether the trial is among the best of its rung. It goes on if the store is away, which decides nothing."""
        job = self.job
        rule = partial(goes_on, factor=job.factor) if job.rungs else median.goes_on
        try:
            return rungs.decide(rung, job.number, value, lambda seen: rule(value, seen, objective=job.objective))
        except TrackingError as error:
            log_line(f"the rung {rung} is left out: {error}")
            return True

    def score(self, result: Result) -> float:
        """The objective of the weights that were kept; of a training that was cut short its best epoch."""
        if self.pruned and not self.folds:
            return self.job.objective.best(self.curve(result), lambda value: value)
        metrics, wanted = self.metrics(result), self.job.objective.metric
        if wanted not in metrics:
            known = ", ".join(sorted(metrics))
            raise ConfigError(Problem("sweep.objective", f"must be a metric that a run logs: {known}", wanted))
        return metrics[wanted]

    def metrics(self, result: Result) -> dict[str, float]:
        """What the training logged, for the weights that were kept."""
        used = result.used_epoch - 1
        metrics = {metric_name(key): curve[used] for key, curve in result.history.items() if used < len(curve)}
        metrics |= {**result.metrics, **{f"wall_seconds/{part}": value for part, value in result.seconds.items()}}
        if self.job.definitions == 1:
            metrics |= {f"val/{name}": value for name, value in result.evaluations["val"].first_metrics.items()}
        return metrics

    def curve(self, result: Result) -> list[float]:
        """The objective epoch by epoch, with the epochs of a continued checkpoint."""
        return result.history.get(self.job.objective.keras_name, [])


def run_trial(job: Job) -> Outcome:
    """Runs a trial to its end. An exception is recorded with its run and returned as the trial's failure."""
    try:
        with exits_as_errors():
            return _run_trial(job)
    except Exception as error:  # whatever a net of the user's own raises fails this trial, not the sweep
        if isinstance(error, UserError):
            place = ", ".join(problem.key for problem in error.problems)
        else:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(frame.filename).name}:{frame.lineno}"
        return Outcome(failure=Failure(type(error).__name__, place, " ".join(str(error).split())))


def _run_trial(job: Job) -> Outcome:
    from mnist_exp.tracking.mlflow_run import MlflowRun

    on_start.get()()
    deadline = None if job.seconds is None else time.monotonic() + job.seconds
    settings = job.config.settings(Tracking)
    with long_retries():
        store = open_once(job.address, Path(settings.folder).resolve())
    _freeze_libraries()
    with (
        hide_library_output() as output,
        MlflowRun.take_over_run(store, Path(settings.folder), job.run_id, job.name) as active,
    ):
        output.move_to(active.log)
        config = check_values(job.config.values, job.config.choices)  # no pair of values was checked before
        _check_own_code(job, config)
        with active.timer("data"):
            splits = replace(load_splits(config, cache=True), test=None)  # so that a trial cannot use the test set
        if job.digest not in (None, splits.digest):
            rule = f"must have the digest {job.digest}, as when the sweep began"
            raise DataError(Problem("the data set", rule, splits.digest))
        train = _train_seeds if job.executions > 1 else _train_once
        try:
            outcome = train(job, config, active, store, splits, deadline)
        except InfeasibleError as found:
            active.log_tags({tags.VIOLATES: str(found)})
            outcome = Outcome(violates=str(found))
    mine = (active.undelivered,) if active.undelivered else ()  # known when the run has ended
    return replace(outcome, undelivered=(*outcome.undelivered, *mine))


def _check_own_code(job: Job, config: RunConfig) -> None:
    """Raises ConfigError if the user's code here is not that with which the sweep began."""
    if (found := digest_own_code(config.values)) != job.own_code:
        what = f"the code of {Path.cwd()} on {platform.node()}"
        rule = "must be that with which this process of the sweep began" if found else "lacks what the config names"
        remedy = "copy it there, or stop the sweep and resume it, after an edit"
        raise ConfigError(Problem(what, rule, remedy=remedy))


def _train_once(
    job: Job, config: RunConfig, active: "MlflowRun", store: Store, splits: Splits, deadline: float | None
) -> Outcome:
    listener = TrialListener(job, deadline, Rungs(store, job.sweep))
    if job.continues:
        with long_retries(), download(store, job.continues, CHECKPOINT) as checkpoint:
            shutil.copytree(checkpoint, active.checkpoints, dirs_exist_ok=True)
    result = train_and_evaluate(config, splits, active, listener)
    if job.keeps_checkpoint:
        shutil.copytree(active.checkpoints, active.artifacts / CHECKPOINT)
    return _conclude(active, [(result, listener)])


def _train_seeds(
    job: Job, config: RunConfig, active: "MlflowRun", store: Store, splits: Splits, deadline: float | None
) -> Outcome:
    """Trains the trial with one seed after another, each in a run nested under the trial's."""
    log_start(active, config, splits)
    done: list[tuple[Result, TrialListener]] = []
    settings = config.settings(Tracking)
    facts = {tags.KIND: "execution", tags.PARENT: job.run_id}
    for seed in range(config.seed, config.seed + job.executions):
        rungs = None if done else Rungs(store, job.sweep)  # the first seed decides for the trial
        listener, name = TrialListener(job, deadline, rungs), f"{job.name}-s{seed}"
        child = type(active).create_run(store, Path(settings.folder), settings.experiment, name, facts)
        child.timer = active.timer
        with child:
            result = train_and_evaluate(config.with_values({"seed": seed}), splits, child, listener)
        done.append((replace(result, undelivered=child.undelivered), listener))
        if listener.pruned:
            break
    means = {key: statistics.fmean(result.metrics[key] for result, _ in done) for key in done[0][0].metrics}
    active.log_metrics(means, step=0)
    best, _ = job.objective.best(done, lambda one: one[1].score(one[0]))
    active.log_tags({tags.MODEL_RUN: str(best.run_id), tags.PARAMETERS: str(best.parameters)})
    return _conclude(active, done)


def _conclude(active: ActiveRun, done: Sequence[tuple[Result, TrialListener]]) -> Outcome:
    """Logs the score before the run ends: a finished run without a score is not counted.

    Raises TrainingError for a score that is not a number, which no sampler can use.
    """
    scores = [listener.score(result) for result, listener in done]
    score, pruned = statistics.fmean(scores), done[-1][1].pruned
    if not math.isfinite(score):
        raise TrainingError(Problem(active.name, f"must have a finite {done[0][1].job.objective.metric}", score))
    diverged = any(result.diverged for result, _ in done)
    measured = [{**listener.metrics(result), **listener.sizes} for result, listener in done]
    names = set.intersection(*map(set, measured))
    means = {name: statistics.fmean(one[name] for one in measured) for name in names}
    violates = "" if pruned else find_violation(done[0][1].job.constraints, means)
    spread = {SPREAD: statistics.stdev(scores)} if len(scores) > 1 else {}
    curve = tuple(map(statistics.fmean, zip(*(listener.curve(result) for result, listener in done), strict=False)))
    active.log_metrics({SCORE: score, **spread}, step=0)
    marks = {tags.PRUNED: pruned, tags.DIVERGED: diverged}
    epochs = sum(listener.epochs for _, listener in done)
    counts = {tags.EPOCHS: str(len(curve)), tags.TRAINED: str(epochs)}
    facts = {tags.VIOLATES: violates} if violates else {}
    active.log_tags({**counts, **facts, **{tag: "true" for tag, holds in marks.items() if holds}})
    undelivered = tuple(result.undelivered for result, _ in done if result.undelivered)
    return Outcome(
        score=score,
        spread=spread.get(SPREAD),
        pruned=pruned,
        diverged=diverged,
        curve=curve,
        epochs=epochs,
        violates=violates,
        undelivered=undelivered,
    )


@functools.cache
def _freeze_libraries() -> None:
    """Takes the half million objects of the libraries, which stay until the worker ends, from the garbage collector."""
    gc.collect()
    gc.freeze()
