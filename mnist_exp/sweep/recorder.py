"""Runs a study, or the rest of it after a crash, and records its trials."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from mnist_exp.config.own_code import digest_own_code
from mnist_exp.config.recorded import targets_of
from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import Tracking, Training
from mnist_exp.errors import TrackingError
from mnist_exp.secrets import hide
from mnist_exp.signals import receive
from mnist_exp.sweep.display import SweepDisplay
from mnist_exp.sweep.engine import Engine
from mnist_exp.sweep.executors.base import TrialExecutor
from mnist_exp.sweep.pruners import asha
from mnist_exp.sweep.pruners.median import MedianPruner
from mnist_exp.sweep.samplers import create_sampler
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.trial import Failure, Job, Outcome, Proposal, Rung
from mnist_exp.sweep.winner import rank
from mnist_exp.sweep.worker import Cancelled, is_cancelled, run_trial
from mnist_exp.tracking.find import experiment_name
from mnist_exp.tracking.stored_run import Outcome as State
from mnist_exp.tracking.stored_run import TrialRun, fetch_run, read_metric_history
from mnist_exp.tracking.sweep_run import SweepRun

COUNTED = {"complete": "scored", "pruned": "pruned", "failed": "failed"}  # outcomes, and the metric that counts each


@dataclass
class TrialRecorder:
    """Writes trials into the tracking store before they start and after they end.

    runs: the runs of trials with a score, by number. best: the best complete trial of the largest budget so far.
    step: that of the newest metrics of the sweep, which counts the trials in the order in which they ended.
    """

    study: Study
    record: SweepRun
    tracking: Tracking
    pruner: MedianPruner
    display: SweepDisplay
    runs: dict[int, str] = field(default_factory=dict)
    best: TrialRun | None = None
    step: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    _started: dict[int, str] = field(default_factory=dict)
    _own_code: dict[frozenset[str], str | None] = field(default_factory=dict)  # by the targets of a config
    _time: float = 0.0  # at which the trial that was counted last has ended

    def __post_init__(self) -> None:
        self._experiment = experiment_name(self.record.store, self.record.run)
        self._dataset = self.study.configs.first().values["dataset"]  # the one whose digest the study knows

    def check(self) -> None:
        """Raises OwnershipLost if the heartbeat has seen that another process runs the sweep."""
        self.record.ownership.check_known()

    def begin(self, proposal: Proposal) -> Job:
        """Creates the run of a trial and returns the job that fills it. Raises OwnershipLost."""
        settings, number, rung = self.study.settings, proposal.number, proposal.rung
        # Where the sweep is, not what a resuming command line says. A worker gets the address of the store beside it.
        place = {"uri": hide(self.record.store.uri), "experiment": self._experiment}
        tracking = {**self.tracking.model_dump(), **place}
        epochs = {"training.epochs": rung.epochs} if rung else {}
        config = self.study.configs.of(proposal.values).with_values({"tracking": tracking, **epochs})
        name = f"{self.study.name}-{number:03d}"
        values = self.study.stored.encode(proposal.values)
        run_id = self.record.create_trial(number, name, values, asdict(rung) if rung else None, config.hash)
        # Now that the run exists: a process that claims the sweep after this check finds the run and supersedes it.
        try:
            self.record.ownership.check()
        except BaseException:
            self.record.supersede(run_id, "the sweep was taken over")
            raise
        self._started[number] = run_id
        factor = settings.factor or asha.FACTOR
        self.display.begin(number, run_id, proposal.values)
        return Job(
            number=number,
            run_id=run_id,
            name=name,
            config=config,
            executions=settings.executions,
            objective=self.study.objective,
            digest=self.study.digest if config.values["dataset"] == self._dataset else None,
            definitions=self.study.definitions,
            address=self.record.store.address,  # not what a worker would choose
            medians=self.pruner.thresholds(self._definition(config)) if self._prunes else (),
            pruning_epochs=settings.pruning_epochs,
            sweep=self.record.id,
            rungs=asha.rungs(config.settings(Training).epochs, settings.first_rung, factor) if settings.asha else (),
            factor=factor,
            continues=self.runs.get(rung.parent) if rung and rung.parent is not None else None,
            keeps_checkpoint=rung is not None,
            seconds=settings.trial_timeout,
            own_code=self._digest_own_code(config),
        )

    def _digest_own_code(self, config: RunConfig) -> str | None:
        """The digest of the user's code as it was when a trial named it first: an edit must not mix two nets."""
        named = frozenset(targets_of(config.values))
        if named not in self._own_code:
            self._own_code[named] = digest_own_code(config.values)
        return self._own_code[named]

    def lost(self, job: Job, why: str) -> None:
        """This run of the trial will not be counted: its worker died or could not be reached."""
        self.record.supersede(job.run_id, why)

    def failed(self, job: Job, failure: Failure) -> None:
        """The trial failed, and its worker could not record why."""
        self.record.fail(job.run_id, str(failure))

    def ended(self, proposal: Proposal, outcome: Outcome) -> None:
        """The trial ended and its run with it."""
        self.record.ownership.check()  # else two processes would log the metrics of the same trial
        number, score = proposal.number, outcome.score
        state: State = "failed" if score is None else "pruned" if outcome.pruned else "complete"
        rung, status = asdict(proposal.rung) if proposal.rung else None, "FAILED" if score is None else "FINISHED"
        ended = fetch_run(self.record.store, self._started[number]).ended
        trial = TrialRun(self._started[number], number, proposal.values, rung, status, state, score, ended=ended)
        self.display.end(trial, str(outcome.failure or "diverged" * outcome.diverged))
        if score is not None and self._prunes:
            self.pruner.add(outcome.curve, self._definition(self.study.configs.of(proposal.values)))
        metrics = self._count(trial)
        self.step += 1
        self.record.log(metrics, self.step, when=self._time)

    def recall(self, trials: Sequence[TrialRun]) -> None:
        """Takes note of the trials that earlier processes ended, and logs those that the sweep has not counted.

        Such a process was killed between the end of a trial and its count. If it was only suspended and goes on, it
        logs the same metrics with the same time, of which the store keeps one.
        """
        logged = self.record.fetch().metrics
        counted = sum(logged.get(key, 0.0) for key in self._totals)
        if len(trials) > counted:
            self.record.ownership.check()
        for place, trial in enumerate(sorted(trials, key=lambda trial: trial.ended or 0.0)):
            self.display.ended[trial.number] = trial
            if trial.has_score and self._prunes:  # nothing else reads curves
                curve = self.record.curve(trial.run_id, self.study.objective.metric)
                self.pruner.add(tuple(curve), self._definition(self.study.configs.of(trial.values)))
            metrics = self._count(trial)
            if place >= counted:
                self.step += 1
                self.record.log(metrics, self.step, when=self._time)

    def _count(self, trial: TrialRun) -> dict[str, float]:
        """Counts a trial that has ended, and returns the metrics of the sweep after it."""
        self.counts[trial.outcome] += 1
        self._time = max(self._time, trial.ended or 0.0)
        if trial.score is None or not trial.has_score:
            return self._totals
        best = self._keep(trial)
        return self._totals | {"trial/score": trial.score} | ({"best/score": best.score or 0.0} if best else {})

    @property
    def _totals(self) -> dict[str, float]:
        """The metrics that count the trials that have ended."""
        return {f"trials/{COUNTED[state]}": float(count) for state, count in self.counts.items()}

    @property
    def _prunes(self) -> bool:
        """Whether the median ends trials. In Hyperband it does not, though old versions accepted both: a rung decides
        which trial continues."""
        return self.study.settings.median and not self.study.settings.hyperband

    def _definition(self, config: RunConfig) -> float | None:
        """Returns what the objective's definition depends on: for `val/loss` the label smoothing."""
        return config.settings(Training).label_smoothing if self.study.objective.metric == "val/loss" else None

    def _keep(self, trial: TrialRun) -> TrialRun | None:
        """Keeps what later trials need of one with a score, and returns the best of the complete trials."""
        self.runs[trial.number] = trial.run_id
        known = [trial] if self.best is None else [self.best, trial]
        self.best = next(iter(rank(known, self.study.objective)), None)
        return self.best


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
    if trials:
        steps = read_metric_history(record.store, record.id, f"trials/{COUNTED['complete']}")
        recorder.step = max((step for step, _ in steps), default=0)
    pending, ended = deque[Proposal](), []
    for trial in trials:
        if trial.outcome == "pending":
            pending.append(Proposal(trial.number, trial.values, Rung(**trial.rung) if trial.rung else None))
        else:
            ended.append(trial)
    recorder.recall(ended)
    sampler = create_sampler(study)
    sampler.restore(trials)
    engine = Engine(
        study.settings, sampler, executor, work, recorder, pending=pending, proposed=len(trials),
        epochs=sum(trial.trained_epochs for trial in ended),
    )  # fmt: skip
    token = is_cancelled.set(lambda: record.ownership.is_lost)  # read by a trial in this process, executor=inline
    with stoppable(engine, display):
        try:
            engine.run()
        except BaseException as error:
            for job in engine.abandon():
                with suppress(TrackingError):  # the next process that runs the sweep does it, too
                    record.supersede(job.run_id, "the sweep was stopped")
            if isinstance(error, Cancelled):
                record.ownership.check_known()
            raise
        finally:
            is_cancelled.reset(token)
    return engine
