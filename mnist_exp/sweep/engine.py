"""Runs the trials of a sweep: a bounded number at a time, no barrier, whatever becomes of a worker."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from typing import Literal, Protocol

from mnist_exp.config.schema import Sweep
from mnist_exp.sweep.executors.base import Preempted, TrialExecutor
from mnist_exp.sweep.trial import WAIT, Job, Outcome, Proposal

LOST = "the worker was killed {} times while it ran this trial: by the system for lack of memory, or from outside"
GRACE = 20  # seconds past its time after which a trial that does not end itself is killed
STARTUP = 300  # seconds in which a worker must begin a trial: it may have to import the libraries first
TICK = 0.5  # seconds between looks at the clock


class Oracle(Protocol):
    """Proposes trials and is told their scores."""

    def ask(self) -> Proposal | Literal["wait"] | None:
        """The next trial; None where there is none, WAIT where one that runs must end first."""

    def tell(self, number: int, score: float | None) -> None:
        """The score of a trial, None: it failed."""


class Book(Protocol):
    """Where trials are written down before they start and when they end."""

    def begin(self, proposal: Proposal) -> Job:
        """A run for this trial, and the job that fills it."""

    def lost(self, job: Job, why: str) -> None:
        """This attempt will never count: its worker died, or was out of reach."""

    def failed(self, job: Job, error: str) -> None:
        """The trial ended without a word of its own."""

    def ended(self, proposal: Proposal, outcome: Outcome) -> None:
        """The trial ended and its run with it."""


@dataclass
class Running:
    """A trial that was submitted.

    deaths: of the workers that ran it before. started: when its worker was first seen to run it.
    """

    proposal: Proposal
    job: Job
    deaths: int = 0
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None

    def is_overdue(self, limit: float) -> bool:
        """Whether the trial has had `limit` seconds and the grace; a cold start of its worker does not count."""
        if self.started is None:
            return time.monotonic() - self.submitted > STARTUP + limit + GRACE
        return time.monotonic() - self.started > limit + GRACE


@dataclass
class Engine:
    """Asks the oracle, submits trials, tells their scores. `why` says afterwards how it ended.

    again: trials that the record left open, to run first.
    """

    settings: Sweep
    oracle: Oracle
    executor: TrialExecutor
    work: Callable[[Job], Outcome]
    book: Book
    again: deque[Proposal] = field(default_factory=deque)
    asked: int = 0
    stopping: bool = False
    why: Literal["done", "exhausted", "timeout", "stopped", "failures"] = "done"
    running: dict[Future, Running] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)  # the last ones in a row
    _retries: deque[tuple[Proposal, int]] = field(default_factory=deque)  # with the deaths of their workers
    _begun: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Until nothing is left to run, or the sweep is stopped."""
        while True:
            self.executor.refresh()
            for proposal, deaths in self._next():
                job = self.book.begin(proposal)
                self.running[self.executor.submit(self.work, job)] = Running(proposal, job, deaths)
            if not self.running:
                if self.executor.width or not (waiting := self._upcoming()):
                    return
                self._retries.appendleft(waiting)  # for a worker, since all have left
                time.sleep(TICK)
                continue
            for future in wait(self.running, TICK, FIRST_COMPLETED).done:
                self._end(future)
            self._kill_overdue()

    def abandon(self) -> Iterator[Job]:
        """Ends what runs at once; its trials stay open."""
        for future, running in self.running.items():
            self.executor.kill(future)
            yield running.job
        self.running.clear()

    def _next(self) -> Iterator[tuple[Proposal, int]]:
        """What to start now."""
        while len(self.running) < self.executor.width:
            suspected = self._retries or any(running.deaths for running in self.running.values())
            # Nothing runs beside a suspect, so no other trial can be the cause or the victim.
            if self.executor.retry_alone and suspected and self.running:
                return
            if not (upcoming := self._upcoming()):
                return
            yield upcoming

    def _upcoming(self) -> tuple[Proposal, int] | None:
        """What to start next, if there is anything."""
        if self._over():
            return None
        if self._retries:
            return self._retries.popleft()
        if self.again:
            return self.again.popleft(), 0
        if self.settings.max_trials is not None and self.asked >= self.settings.max_trials:
            return None
        proposal = self.oracle.ask()
        if proposal is None:
            self.why = "exhausted"
        if proposal is None or proposal == WAIT:
            return None
        self.asked += 1
        return proposal, 0

    def _over(self) -> bool:
        if self.stopping:
            self.why = "stopped"
        elif self.settings.timeout is not None and time.monotonic() - self._begun > self.settings.timeout:
            self.why = "timeout"
        elif len(self.failures) >= self.settings.max_consecutive_failures:
            self.why = "failures"
        else:
            return False
        return True

    def _end(self, future: Future) -> None:
        running = self.running.pop(future)
        error = future.exception()
        died = isinstance(error, BrokenExecutor)
        deaths = running.deaths + died
        if isinstance(error, Preempted) or (died and deaths < self.executor.max_deaths):
            self.book.lost(running.job, "its worker was killed" if died else str(error))
            self._retries.append((running.proposal, deaths))
            return
        if error is not None:
            outcome = Outcome(error=LOST.format(deaths) if died else repr(error))
            self.book.failed(running.job, outcome.error)
        else:
            outcome = future.result()
        self._tell(running.proposal, outcome)

    def _tell(self, proposal: Proposal, outcome: Outcome) -> None:
        if outcome.error and self.failures and outcome.error != self.failures[-1]:
            self.failures.clear()
        self.failures = [*self.failures, outcome.error] if outcome.error else []
        self.oracle.tell(proposal.number, outcome.score)
        self.book.ended(proposal, outcome)

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
                error = f"a trial may take sweep.trial_timeout={limit:g} s, but did not end and was killed"
                self.book.failed(running.job, error)
                self._tell(running.proposal, Outcome(error=error))
