"""Runs a study: what is left of it after a crash, too."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import OmegaConf

from mnist_exp.config.schema import Tracking
from mnist_exp.sweep.display import Board
from mnist_exp.sweep.engine import Engine, Slots
from mnist_exp.sweep.pruners.median import Medians
from mnist_exp.sweep.samplers import oracle_of
from mnist_exp.sweep.study import Study, config_hash
from mnist_exp.sweep.trial import Job, Outcome, Past, Proposal, Rung
from mnist_exp.sweep.worker import work
from mnist_exp.tracking.stored_run import TrialRun
from mnist_exp.tracking.sweep_run import SweepRun

COUNTS = {"complete": "trials/scored", "pruned": "trials/pruned", "failed": "trials/failed"}  # names in the store


@dataclass
class Ledger:
    """Writes trials down in the tracking store before they start and after they end."""

    study: Study
    record: SweepRun
    tracking: Tracking
    medians: Medians
    board: Board
    runs: dict[int, str] = field(default_factory=dict)  # of scored trials, by number
    best: tuple[int, float] | None = None
    counts: dict[str, int] = field(default_factory=lambda: {"complete": 0, "pruned": 0, "failed": 0})
    _attempts: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._dataset = self.study.configs.first().dataset  # the one whose digest the study knows

    def begin(self, proposal: Proposal) -> Job:
        """A run for this trial, and the job that fills it."""
        settings, number = self.study.settings, proposal.number
        config, choices = self.study.configs.of(proposal.values)
        rung = proposal.rung
        if rung:
            config.training.epochs = rung.epochs
        config.tracking = {**asdict(self.tracking), "uri": self.record.store.uri}  # workers have no say in it
        plain: Any = OmegaConf.to_container(config, resolve=True)
        name = f"{self.study.name}-{number:03d}"
        run_id = self.record.create_trial(
            number, name, proposal.values, asdict(rung) if rung else None, config_hash(plain)
        )
        self._attempts[number] = run_id
        self.board.begin(number, run_id, proposal.values)
        return Job(
            number=number,
            run_id=run_id,
            name=name,
            config=plain,
            choices=choices,
            executions=settings.executions,
            objective=settings.objective,
            direction=settings.direction,
            digest=self.study.digest if config.dataset == self._dataset else None,
            medians=self.medians.now() if settings.pruning == "median" else (),
            pruning_epochs=settings.pruning_epochs,
            continues=self.runs.get(rung.parent) if rung and rung.parent is not None else None,
            keeps_checkpoint=rung is not None,
            seconds=settings.trial_timeout,
        )

    def lost(self, job: Job, why: str) -> None:
        """This attempt will never count: its worker died, or was out of reach."""
        self.record.supersede(job.run_id, why)

    def failed(self, job: Job, error: str) -> None:
        """The trial ended without a word of its own."""
        self.record.fail(job.run_id, error)

    def ended(self, proposal: Proposal, outcome: Outcome) -> None:
        """The trial ended and its run with it."""
        number = proposal.number
        state = "failed" if outcome.score is None else "pruned" if outcome.pruned else "complete"
        self.counts[state] += 1
        self.board.end(number, proposal.values, outcome.score, state, outcome.error)
        if outcome.score is not None:
            self.runs[number] = self._attempts[number]
            self.medians.curves.append(outcome.curve)
            self._compare(number, outcome.score)
        metrics = {COUNTS[state]: float(count) for state, count in self.counts.items()}
        if outcome.score is not None and self.best:
            metrics |= {"trial/score": outcome.score, "best/score": self.best[1]}
        self.record.log(metrics, step=number)

    def recall(self, attempt: TrialRun) -> None:
        """A trial that an earlier process ended."""
        self.counts[attempt.outcome] += 1
        self.board.recall(attempt.number, attempt.values, attempt.score, attempt.outcome)
        if attempt.score is not None:
            self.runs[attempt.number] = attempt.run_id
            if self.study.settings.pruning == "median":
                self.medians.curves.append(tuple(self.record.curve(attempt.run_id, self.study.settings.objective)))
            self._compare(attempt.number, attempt.score)

    def _compare(self, number: int, score: float) -> None:
        sign = self.study.settings.sign
        if self.best is None or (sign * score, -number) > (sign * self.best[1], -self.best[0]):
            self.best = number, score


def proposal_of(attempt: TrialRun) -> Proposal:
    """What the oracle had proposed."""
    return Proposal(attempt.number, attempt.values, Rung(**attempt.rung) if attempt.rung else None)


def past_of(attempts: Sequence[TrialRun]) -> list[Past]:
    """Recorded trials as an oracle is told of them."""
    return [Past(proposal_of(a), a.outcome != "pending", a.score if a.outcome != "pending" else None) for a in attempts]


Work = Callable[[Job], Outcome]


@contextmanager
def stoppable(engine: Engine) -> Iterator[None]:
    """The first Ctrl-C lets running trials finish; the second, as SIGTERM does, ends them at once."""

    def stop(signum: int, frame: Any) -> None:
        if engine.stopping:
            raise KeyboardInterrupt
        engine.stopping = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def search(
    study: Study, record: SweepRun, tracking: Tracking, executor: Slots, board: Board, work: Work = work
) -> Engine:
    """Runs what is left of a sweep, and returns the engine, which knows how it ended."""
    attempts = record.trials()
    ledger = Ledger(study, record, tracking, Medians(study.settings.pruning_trials), board)
    for attempt in attempts:
        if attempt.outcome != "pending":
            ledger.recall(attempt)
    proposer = oracle_of(study)
    proposer.restore(past_of(attempts))
    again = deque(proposal_of(attempt) for attempt in attempts if attempt.outcome == "pending")
    engine = Engine(study.settings, proposer, executor, work, ledger, again=again, asked=len(attempts))
    with stoppable(engine):
        try:
            engine.run()
        except BaseException:
            for job in engine.abandon():
                record.supersede(job.run_id, "the sweep was stopped")
            raise
    return engine
