"""Runs a study, or the rest of it after a crash, and records its trials."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from mnist_exp.config.schema import Tracking
from mnist_exp.secrets import hide
from mnist_exp.sweep.display import SweepDisplay
from mnist_exp.sweep.engine import Engine
from mnist_exp.sweep.executors.base import TrialExecutor
from mnist_exp.sweep.pruners.median import MedianPruner
from mnist_exp.sweep.samplers import create_sampler
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.trial import Failure, Job, Outcome, Proposal, Rung
from mnist_exp.sweep.worker import run_trial
from mnist_exp.tracking.stored_run import TrialRun
from mnist_exp.tracking.sweep_run import SweepRun

COUNTED = {"complete": "scored", "pruned": "pruned", "failed": "failed"}  # outcomes, and the metric that counts each


@dataclass
class TrialRecorder:
    """Writes trials into the tracking store before they start and after they end.

    runs: the runs of trials with a score, by number. best: number and score of the best trial so far.
    """

    study: Study
    record: SweepRun
    tracking: Tracking
    pruner: MedianPruner
    display: SweepDisplay
    runs: dict[int, str] = field(default_factory=dict)
    best: tuple[int, float] | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    _started: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._dataset = self.study.configs.first().values["dataset"]  # the one whose digest the study knows

    def begin(self, proposal: Proposal) -> Job:
        """Creates the run of a trial and returns the job that fills it."""
        settings, number, rung = self.study.settings, proposal.number, proposal.rung
        tracking = {**self.tracking.model_dump(), "uri": hide(self.record.store.uri)}
        epochs = {"training.epochs": rung.epochs} if rung else {}
        config = self.study.configs.of(proposal.values).with_values({"tracking": tracking, **epochs})
        name = f"{self.study.name}-{number:03d}"
        values, place = self.study.stored.encode(proposal.values), asdict(rung) if rung else None
        run_id = self.record.create_trial(number, name, values, place, config.hash)
        self._started[number] = run_id
        self.display.begin(number, run_id, proposal.values)
        return Job(
            number=number,
            run_id=run_id,
            name=name,
            config=config,
            executions=settings.executions,
            objective=self.study.objective,
            digest=self.study.digest if config.values["dataset"] == self._dataset else None,
            address=self.record.store.address,  # not what a worker would choose
            medians=self.pruner.thresholds() if settings.median else (),
            pruning_epochs=settings.pruning_epochs,
            continues=self.runs.get(rung.parent) if rung and rung.parent is not None else None,
            keeps_checkpoint=rung is not None,
            seconds=settings.trial_timeout,
        )

    def lost(self, job: Job, why: str) -> None:
        """This run of the trial will not be counted: its worker died or could not be reached."""
        self.record.supersede(job.run_id, why)

    def failed(self, job: Job, failure: Failure) -> None:
        """The trial failed, and its worker could not record why."""
        self.record.fail(job.run_id, str(failure))

    def ended(self, proposal: Proposal, outcome: Outcome) -> None:
        """The trial ended and its run with it."""
        number, score = proposal.number, outcome.score
        state = "failed" if score is None else "pruned" if outcome.pruned else "complete"
        self.counts[state] += 1
        self.display.end(number, proposal.values, score, state, str(outcome.failure or ""))
        metrics = {f"trials/{COUNTED[state]}": float(count) for state, count in self.counts.items()}
        if score is not None:
            best = self._keep(number, score, self._started[number], outcome.curve)
            metrics |= {"trial/score": score, "best/score": best}
        self.record.log(metrics, step=number)

    def recall(self, trial: TrialRun) -> None:
        """Takes note of a trial that an earlier process ended."""
        self.counts[trial.outcome] += 1
        self.display.ended[trial.number] = trial.values, trial.score, trial.outcome
        if trial.score is not None:
            median, metric = self.study.settings.median, self.study.objective.metric
            curve = self.record.curve(trial.run_id, metric) if median else ()  # nothing else reads it
            self._keep(trial.number, trial.score, trial.run_id, tuple(curve))

    def _keep(self, number: int, score: float, run_id: str, curve: tuple[float, ...]) -> float:
        """Keeps what later trials need of one with a score, and returns the best score. Of equals the first is best."""
        self.runs[number] = run_id
        self.pruner.curves.append(curve)
        rank = self.study.objective.rank
        if self.best is None or (rank(score), number) < (rank(self.best[1]), self.best[0]):
            self.best = number, score
        return self.best[1]


@contextmanager
def stoppable(engine: Engine) -> Iterator[None]:
    """The first Ctrl-C lets running trials finish. The second ends them at once, as SIGTERM does."""

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
    study: Study,
    record: SweepRun,
    tracking: Tracking,
    executor: TrialExecutor,
    display: SweepDisplay,
    work: Callable[[Job], Outcome] = run_trial,
) -> Engine:
    """Runs what is left of a sweep, and returns the engine, which knows how it ended."""
    trials = study.trials(record)
    recorder = TrialRecorder(study, record, tracking, MedianPruner(study.settings.pruning_trials), display)
    pending = deque[Proposal]()
    for trial in trials:
        if trial.outcome == "pending":
            pending.append(Proposal(trial.number, trial.values, Rung(**trial.rung) if trial.rung else None))
        else:
            recorder.recall(trial)
    sampler = create_sampler(study)
    sampler.restore(trials)
    engine = Engine(study.settings, sampler, executor, work, recorder, pending=pending, proposed=len(trials))
    with stoppable(engine):
        try:
            engine.run()
        except BaseException:
            for job in engine.abandon():
                record.supersede(job.run_id, "the sweep was stopped")
            raise
    return engine
