"""Records the trials of a sweep before they start and when they end."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from mnist_exp.config.own_code import digest_own_code
from mnist_exp.config.recorded import targets_of
from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import Tracking, Training
from mnist_exp.errors import ConfigError
from mnist_exp.secrets import hide
from mnist_exp.sweep.constraints import find_violation
from mnist_exp.sweep.display import SweepDisplay
from mnist_exp.sweep.pruners import asha
from mnist_exp.sweep.pruners.median import MedianPruner
from mnist_exp.sweep.stored_values import OUTSIDE
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.trial import Failure, Job, Outcome, Proposal
from mnist_exp.sweep.winner import rank
from mnist_exp.tracking import tags
from mnist_exp.tracking.environment import digest_code
from mnist_exp.tracking.find import experiment_name
from mnist_exp.tracking.rungs import Rungs
from mnist_exp.tracking.stored_run import Outcome as State
from mnist_exp.tracking.stored_run import TrialRun, fetch_run, read_report
from mnist_exp.tracking.sweep_run import SweepRun, find_trained

# Outcomes, and the metric that counts each.
COUNTED = {"complete": "scored", "pruned": "pruned", "failed": "failed", "infeasible": "infeasible"}


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
    _retried: bool = False
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
        config, rung = self._config(proposal), proposal.rung
        run_id = self._create_run(proposal, config)
        return replace(
            self._job(proposal.number, run_id, self._name(proposal.number), config),
            medians=self.pruner.thresholds(self._definition(config)) if self._prunes else (),
            rungs=self._rungs(config),
            continues=self.runs.get(rung.parent) if rung and rung.parent is not None else None,
            keeps_checkpoint=rung is not None,
            constraints=self.study.constraints,
        )

    def _job(self, number: int, run_id: str, name: str, config: RunConfig) -> Job:
        """The job of a training that runs to its end."""
        settings = self.study.settings
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
            pruning_epochs=settings.pruning_epochs,
            sweep=self.record.id,
            factor=settings.factor or asha.FACTOR,
            seconds=settings.trial_timeout,
            own_code=self._digest_own_code(config),
        )

    def begin_confirmation(self, trial: TrialRun, seed: int) -> Job:
        """Creates the run in which a trial is trained again, and returns the job that fills it. seed: counted from 0.

        The trial itself has had the first seeds.
        """
        proposal = Proposal(trial.number, trial.values)
        config = self._config(proposal)
        config = config.with_values({"seed": config.seed + self.study.settings.executions + seed})
        name = f"{self._name(trial.number)}-s{config.seed}"
        run_id = self.record.create_confirmation(trial, name, seed, config.hash)
        return replace(self._job(trial.number, run_id, name, config), executions=1)

    def reuse(self, proposal: Proposal) -> Outcome | None:
        """Gives a trial the result of a run with the same config, data and code, if sweep.reuse allows it.

        Returns None if there is no such run.
        """
        if not self.study.settings.reuse:
            return None
        objective, config = self.study.objective, self._config(proposal)
        same = {
            tags.CONFIG_HASH: config.hash,
            tags.CODE_DIGEST: digest_code(),
            tags.OWN_CODE: self._digest_own_code(config),
        }
        found = find_trained(self.record.store, same, self.study.digest)
        if found is None or objective.metric not in found.metrics:
            return None
        # Keras reports an accuracy as float32, so the exact one is taken, with which a trial is scored.
        exact = {
            f"val/{key}": value for key, value in read_report(self.record.store, found.model_run_id)["metrics"].items()
        }
        metrics = {**exact, **found.metrics, **{key: exact[key] for key in ("val/accuracy",) if key in exact}}
        sizes = {"parameters": float(found.tags[tags.PARAMETERS])} if tags.PARAMETERS in found.tags else {}
        try:
            violates = find_violation(self.study.constraints, {**metrics, **sizes})
        except ConfigError:  # the size of its net is not known
            return None
        run_id = self._create_run(proposal, config)
        curve = self.record.curve(found.id, objective.metric)[: config.settings(Training).epochs]
        for epoch in self._rungs(config):  # the rungs compare other trials with it
            if epoch <= len(curve):
                rungs = Rungs(self.record.store, self.record.id)
                rungs.decide(epoch, proposal.number, curve[epoch - 1], lambda seen: True)
        score = metrics[objective.metric]
        facts = {tags.EPOCHS: str(len(curve)), tags.TRAINED: "0", **({tags.VIOLATES: violates} if violates else {})}
        self.record.reuse(run_id, found, score, facts)
        return Outcome(score=score, curve=tuple(curve), violates=violates)

    def _config(self, proposal: Proposal) -> RunConfig:
        """The config of a trial, with the place where the sweep is, not what a resuming command line says.

        A worker gets the address of the store beside it.
        """
        place = {"uri": hide(self.record.store.uri), "experiment": self._experiment}
        tracking = {**self.tracking.model_dump(), **place}
        epochs = {"training.epochs": proposal.rung.epochs} if proposal.rung else {}
        return self.study.configs.of(proposal.values).with_values({"tracking": tracking, **epochs})

    def _name(self, number: int) -> str:
        return f"{self.study.name}-{number:03d}"

    def _rungs(self, config: RunConfig) -> tuple[int, ...]:
        settings = self.study.settings
        if not settings.asha:
            return ()
        return asha.rungs(config.settings(Training).epochs, settings.first_rung, settings.factor or asha.FACTOR)

    def _create_run(self, proposal: Proposal, config: RunConfig) -> str:
        """Creates the run of a trial and returns its id. Raises OwnershipLost."""
        number, rung = proposal.number, asdict(proposal.rung) if proposal.rung else None
        values = self.study.stored.encode(proposal.values)
        run_id = self.record.create_trial(number, self._name(number), values, rung, config.hash, proposal.source)
        self._started[number] = run_id
        self.display.begin(number, run_id, proposal.values)
        return run_id

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

    def ended(self, proposal: Proposal, outcome: Outcome) -> bool:
        """The trial ended and its run with it. Returns whether it is the best one so far."""
        self.record.ownership.check()  # else two processes would log the metrics of the same trial
        number, score = proposal.number, outcome.score
        state: State = "failed" if outcome.failure else "pruned" if outcome.pruned else "complete"
        if score is None and outcome.violates:
            state = "infeasible"
        rung, status = asdict(proposal.rung) if proposal.rung else None, "FAILED" if outcome.failure else "FINISHED"
        run = fetch_run(self.record.store, self._started[number])
        self._retried = self._retried or tags.SUPERSEDED in run.tags
        excluded = outcome.violates or OUTSIDE * (not self.study.space.holds(proposal.values))
        trial = TrialRun(
            run.id, number, proposal.values, rung, status, state, score, excluded=excluded, ended=run.ended,
            tags=run.tags,
        )  # fmt: skip
        reused = "the result of another run" * (tags.REUSED in run.tags)
        self.display.end(trial, str(outcome.failure or outcome.violates or reused or "diverged" * outcome.diverged))
        if score is not None and self._prunes:
            self.pruner.add(outcome.curve, self._definition(self.study.configs.of(proposal.values)))
        metrics = self._count(trial)
        self.step += 1
        self.record.log(metrics, self.step, when=self._time)
        return self.best is not None and self.best.number == number

    def take_retried(self) -> bool:
        """Whether somebody has asked, before the end of a trial was known here, that it runs again."""
        retried, self._retried = self._retried, False
        return retried

    def recount(self, study: Study, trials: Sequence[TrialRun]) -> None:
        """Counts again which trials have ended: the space has changed, or failed ones run again."""
        self.study, self.best = study, next(iter(rank(trials, study.objective)), None)
        self.counts = {state: sum(trial.outcome == state for trial in trials) for state in COUNTED}
        self.display.ended = {trial.number: trial for trial in trials}
        self.step += 1
        self.record.log(self._totals, self.step)

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
        if counted > len(trials):  # failed ones run again, and a process was killed before it said so
            self.step += 1
            self.record.log(self._totals, self.step)

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
