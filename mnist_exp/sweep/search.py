"""Runs a study, or the rest of it after a crash: its engine, steered by people and stopped by signals."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from mnist_exp.config.compose import PACKAGE_SOURCE
from mnist_exp.config.schema import Tracking
from mnist_exp.errors import TrackingError
from mnist_exp.signals import receive
from mnist_exp.sweep.display import SweepDisplay
from mnist_exp.sweep.engine import Engine
from mnist_exp.sweep.executors.base import TrialExecutor
from mnist_exp.sweep.plan import total
from mnist_exp.sweep.pruners.median import MedianPruner
from mnist_exp.sweep.recorder import COUNTED, TrialRecorder
from mnist_exp.sweep.samplers import create_sampler
from mnist_exp.sweep.steering import Steering, count_outside
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.trial import Job, Outcome, Proposal, Rung
from mnist_exp.sweep.winner import rank
from mnist_exp.sweep.worker import Cancelled, is_cancelled, run_trial
from mnist_exp.tracking import tags
from mnist_exp.tracking.requests import asked_for_more
from mnist_exp.tracking.stored_run import TrialRun, read_metric_history
from mnist_exp.tracking.sweep_run import SweepRun


@contextmanager
def stoppable(engine: Engine, display: SweepDisplay) -> Iterator[None]:
    """The first Ctrl-C lets running trials finish. The second ends them at once, as SIGTERM does."""

    def stop(signum: int, frame: Any) -> None:
        if engine.stopping:
            receive(signum)
        engine.stopping = True
        display.stopping()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass
class SteeredSearch:
    """Brings what people ask of a sweep into its engine."""

    steering: Steering
    recorder: TrialRecorder

    def steer(self, engine: Engine) -> None:
        """Changes the engine as people have asked."""
        self.steering.direct(engine)
        display = self.recorder.display
        display.is_paused = engine.paused
        if study := self.steering.take_change(self.recorder.take_retried()):
            trials = study.trials(self.recorder.record)
            self.recorder.recount(study, restore(engine, study, trials, asked_for_more(self.recorder.record.fetch())))
            display.total = total(study, count_outside(study, trials))

    def has_changed(self) -> bool:
        """Whether something was asked since."""
        return self.steering.has_changed


def restore(engine: Engine, study: Study, trials: Sequence[TrialRun], asked: float) -> list[TrialRun]:
    """Puts an engine into the state that follows from the trials in the store, and returns those that have ended.

    Trials that the engine runs have no end yet, whatever the store says: it tells their scores itself. asked: when
    somebody asked for more trials, in seconds since 1970, from which on sweep.patience counts.
    """
    engine.keep({trial.number for trial in trials})
    busy = engine.busy
    known = [replace(trial, outcome="pending") if trial.number in busy else trial for trial in trials]
    ended = [trial for trial in known if trial.outcome != "pending"]
    engine.settings, engine.sampler = study.settings, create_sampler(study)
    engine.sampler.restore(known)
    engine.pending = deque(
        Proposal(
            trial.number, trial.values, Rung(**trial.rung) if trial.rung else None, trial.tags.get(tags.PROPOSED_BY, "")
        )
        for trial in known
        if trial.outcome == "pending" and trial.number not in busy
    )
    engine.proposed = len(known)
    engine.infeasible = sum(trial.outcome == "infeasible" for trial in ended)
    engine.epochs = sum(trial.trained_epochs for trial in ended)
    best = next(iter(rank(ended, study.objective)), None)
    since = max(asked, best.ended or 0.0 if best else 0.0)
    engine.idle = sum((trial.ended or 0.0) > since for trial in ended if trial.outcome != "infeasible")
    engine.failures, engine.stop_reason = [], "done"
    return ended


def search(
    study: Study,
    record: SweepRun,
    tracking: Tracking,
    executor: TrialExecutor,
    display: SweepDisplay,
    work: Callable[[Job], Outcome] = run_trial,
    steering: Steering | None = None,
) -> Engine:
    """Runs what is left of a sweep, and returns the engine, which knows how it ended."""
    steering = steering or Steering(study, record, PACKAGE_SOURCE, display.say)
    trials = study.trials(record)
    recorder = TrialRecorder(study, record, tracking, MedianPruner(study.settings.pruning_trials), display)
    if trials:
        steps = read_metric_history(record.store, record.id, f"trials/{COUNTED['complete']}")
        recorder.step = max((step for step, _ in steps), default=0)
    engine = Engine(
        study.settings, create_sampler(study), executor, work, recorder, steering=SteeredSearch(steering, recorder)
    )
    recorder.recall(restore(engine, study, trials, asked_for_more(record.fetch())))
    drive(engine, record, display, steering)
    return engine


def drive(engine: Engine, record: SweepRun, display: SweepDisplay, steering: Steering) -> None:
    """Runs an engine to its end, or until a signal or a request ends it: then it abandons its running trials."""
    # Read by a trial in this process, executor=inline.
    token = is_cancelled.set(lambda: record.ownership.is_lost or steering.is_ending)
    with stoppable(engine, display):
        try:
            engine.run()
        except BaseException as error:
            for job in engine.abandon():
                with suppress(TrackingError):  # the next process that runs the sweep does it, too
                    record.supersede(job.run_id, "the sweep was stopped")
            if not isinstance(error, Cancelled):
                raise
            record.ownership.check_known()
            if not steering.is_ending:
                raise
            engine.stop_reason = "stopped"
        finally:
            is_cancelled.reset(token)
