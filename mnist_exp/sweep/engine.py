"""Runs the trials of a sweep, a bounded number at a time. The next trial starts when one has ended."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from typing import Literal, Protocol

from mnist_exp.config.schema import Sweep
from mnist_exp.signals import raise_received
from mnist_exp.sweep.executors.base import Preempted, TrialExecutor
from mnist_exp.sweep.trial import WAIT, Failure, Job, Outcome, Proposal

LOST = "the worker was killed {} times while it ran this trial: by the system for lack of memory, or from outside"
GRACE = 20  # seconds past its time after which a trial that does not end itself is killed
STARTUP = 300  # seconds in which a worker must begin a trial: it may have to import the libraries first
TICK = 0.5  # seconds between looks at the clock
MOST_VIOLATIONS = 100  # trials in a row whose nets violate a constraint: there may be no other net

StopReason = Literal["done", "exhausted", "timeout", "epochs", "patience", "stopped", "failures", "infeasible"]


class Sampler(Protocol):
    """Proposes trials and is told their scores."""

    def ask(self) -> Proposal | Literal["wait"] | None:
        """Returns the next trial, None if there is none, or WAIT if a running trial must end first."""

    def tell(self, number: int, score: float | None, pruned_at: int | None = None) -> None:
        """Takes the score of a trial; None: it failed. pruned_at: the epoch at which it was ended early."""

    @property
    def has_queue(self) -> bool:
        """Whether the next trial is one that somebody has chosen."""


class Steering(Protocol):
    """What people ask of a sweep while it runs."""

    def steer(self, engine: "Engine") -> None:
        """Changes the engine as they have asked. The engine calls it often."""

    def has_changed(self) -> bool:
        """Whether something was asked that `steer` has not brought in, so that the engine must not end."""


class Unsteered:
    """Nobody asks for anything."""

    def steer(self, engine: "Engine") -> None:
        """Does nothing."""

    def has_changed(self) -> bool:
        """Returns False."""
        return False


class Recorder(Protocol):
    """Records trials before they start and when they end."""

    def check(self) -> None:
        """Raises an error if this process must not go on. The engine calls it often."""

    def reuse(self, proposal: Proposal) -> Outcome | None:
        """Returns the outcome of a trial that was trained before, and records it; None if it has to be trained."""

    def begin(self, proposal: Proposal) -> Job:
        """Creates the run of a trial and returns the job that fills it."""

    def lost(self, job: Job, why: str) -> None:
        """This run of the trial will not be counted: its worker died or could not be reached."""

    def failed(self, job: Job, failure: Failure) -> None:
        """The trial failed, and its worker could not record why."""

    def ended(self, proposal: Proposal, outcome: Outcome) -> bool:
        """The trial ended and its run with it. Returns whether it is the best one so far."""


@dataclass
class Running:
    """A trial that was submitted.

    deaths: of the workers that ran it before. started: when its worker was first seen to run it.
    """

    proposal: Proposal
    job: Job
    deaths: int
    submitted: float
    started: float | None = None

    def is_overdue(self, limit: float) -> bool:
        """Whether the trial has had `limit` seconds and the grace; a cold start of its worker does not count."""
        if self.started is None:
            return time.monotonic() - self.submitted > STARTUP + limit + GRACE
        return time.monotonic() - self.started > limit + GRACE


@dataclass
class Engine:
    """Asks the sampler, submits trials, tells their scores. `stop_reason` says afterwards how it ended.

    pending: recorded trials that have no end yet; they run first. proposed: the number of trials so far, and
    infeasible: of those that were not trained, because their nets violate a constraint. epochs: those that ended trials
    have trained. idle: the trials that have ended since the best one. failures: the last trials in a row that failed
    alike. undelivered: the folders of the runs of a trial of which the store has not taken everything, by its number.
    """

    settings: Sweep
    sampler: Sampler
    executor: TrialExecutor
    work: Callable[[Job], Outcome]
    recorder: Recorder
    pending: deque[Proposal] = field(default_factory=deque)
    steering: Steering = field(default_factory=Unsteered)
    proposed: int = 0
    infeasible: int = 0
    epochs: int = 0
    idle: int = 0
    paused: bool = False
    stopping: bool = False  # no more trials start
    ending: bool = False  # the running ones end at once, too
    stop_reason: StopReason = "done"
    running: dict[Future, Running] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    undelivered: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _violations: int = 0  # in a row
    _retries: deque[tuple[Proposal, int]] = field(default_factory=deque)  # with the deaths of their workers
    _begun: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Runs trials until none is left or the sweep is stopped."""
        while True:
            raise_received()
            self.recorder.check()
            self.steering.steer(self)
            if self.ending:
                for job in self.abandon():
                    self.recorder.lost(job, "the sweep was stopped")
                self.stop_reason = "stopped"
                return
            self.executor.refresh()
            for proposal, deaths in self._next():
                if outcome := self.recorder.reuse(proposal):
                    self._tell(proposal, outcome)
                    continue
                job = self.recorder.begin(proposal)
                future = self.executor.submit(self.work, job)
                self.running[future] = Running(proposal, job, deaths, submitted=time.monotonic())
            if not self.running:
                waiting = None if self.executor.width else self._upcoming()
                if waiting:
                    self._retries.appendleft(waiting)  # it waits for a worker, because all have left
                elif not self.is_waiting and not self.steering.has_changed():
                    return
                time.sleep(TICK)
                continue
            for future in wait(self.running, TICK, FIRST_COMPLETED).done:
                self._end(future)
            self._kill_overdue()

    @property
    def is_waiting(self) -> bool:
        """Whether somebody must say that trials go on."""
        return self.paused and not self._over()

    @property
    def busy(self) -> set[int]:
        """The numbers of the trials that run, or run again soon."""
        running = {running.proposal.number for running in self.running.values()}
        return running | {proposal.number for proposal, _ in self._retries}

    def keep(self, begun: Collection[int]) -> None:
        """Drops the trials that wait for a worker and have not begun. A sampler that does not know them proposes them.

        begun: the numbers of the trials that have.
        """
        self._retries = deque(waiting for waiting in self._retries if waiting[0].number in begun)

    def abandon(self) -> Iterator[Job]:
        """Ends the running trials at once and yields their jobs: these trials stay pending."""
        while self.running:
            future, running = self.running.popitem()
            if future.done() and not future.exception():
                continue  # its run has come to its end
            self.executor.kill(future)
            yield running.job

    def _next(self) -> Iterator[tuple[Proposal, int]]:
        """Yields the trials to start now, with the deaths of their workers so far."""
        while len(self.running) < self.executor.width:
            suspected = self._retries or any(running.deaths for running in self.running.values())
            # Nothing runs beside a suspect, so no other trial can be the cause or the victim.
            if self.executor.retry_alone and suspected and self.running:
                return
            if not (upcoming := self._upcoming()):
                return
            yield upcoming

    def _upcoming(self) -> tuple[Proposal, int] | None:
        """Returns the trial to start next, with the deaths of its workers; None if there is none now."""
        if self._over() or self.paused:
            return None
        if self._retries:
            return self._retries.popleft()
        if self.pending:
            return self.pending.popleft(), 0
        if self.settings.max_trials is not None and self.proposed - self.infeasible >= self.settings.max_trials:
            return None
        proposal = self.sampler.ask()
        if proposal is None:
            self.stop_reason = "exhausted"
        if proposal is None or proposal == WAIT:
            return None
        self.proposed += 1
        return proposal, 0

    def _over(self) -> bool:
        if self.stopping:
            self.stop_reason = "stopped"
        elif self.settings.timeout is not None and time.monotonic() - self._begun > self.settings.timeout:
            self.stop_reason = "timeout"
        elif self._violations >= MOST_VIOLATIONS:
            self.stop_reason = "infeasible"
        elif len(self.failures) >= self.settings.max_consecutive_failures:
            self.stop_reason = "failures"
        elif self._retries or self.pending or self.sampler.has_queue:
            return False  # what has begun, or somebody has chosen, runs whatever the others have brought
        elif self.settings.max_epochs is not None and self.epochs >= self.settings.max_epochs:
            self.stop_reason = "epochs"
        elif self.settings.patience is not None and self.idle >= self.settings.patience:
            self.stop_reason = "patience"
        else:
            return False
        return True

    def _end(self, future: Future) -> None:
        running = self.running.pop(future)
        error = future.exception()
        died = isinstance(error, BrokenExecutor)
        deaths = running.deaths + died
        if isinstance(error, Preempted) or (died and deaths < self.executor.max_deaths):
            self.recorder.lost(running.job, "its worker was killed" if died else str(error))
            self._retries.append((running.proposal, deaths))
        elif error is not None:
            message = LOST.format(deaths) if died else str(error)
            self._fail(running, Failure(type(error).__name__, "", message))
        else:
            self._tell(running.proposal, future.result())

    def _fail(self, running: Running, failure: Failure) -> None:
        """Ends a trial whose worker could not record its failure."""
        self.recorder.failed(running.job, failure)
        self._tell(running.proposal, Outcome(failure=failure))

    def _tell(self, proposal: Proposal, outcome: Outcome) -> None:
        failure = outcome.failure
        before = self.failures if failure and self.failures and failure.is_like(self.failures[-1]) else []
        self.failures = [*before, failure] if failure else []
        untrained = bool(outcome.violates) and outcome.score is None
        self.infeasible += untrained
        self._violations = self._violations + 1 if untrained else 0
        if outcome.undelivered:
            self.undelivered[proposal.number] = outcome.undelivered
        self.epochs += outcome.epochs
        score = None if outcome.violates else outcome.score
        self.sampler.tell(proposal.number, score, len(outcome.curve) if outcome.pruned else None)
        is_best = self.recorder.ended(proposal, outcome)
        self.idle = 0 if is_best else self.idle + (not untrained)

    def _kill_overdue(self) -> None:
        limit = self.settings.trial_timeout
        if limit is None:
            return
        for future, running in list(self.running.items()):
            if running.started is None and future.running():
                running.started = time.monotonic()
            if running.is_overdue(limit) and not future.done():
                self.executor.kill(future)
                del self.running[future]
                message = f"a trial may take sweep.trial_timeout={limit:g} s, but did not end and was killed"
                self._fail(running, Failure("TimeoutError", "", message))
