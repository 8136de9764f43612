"""sweep.confirm: trains the best trials of a sweep again, with new seeds."""

from collections.abc import Callable, Sequence
from typing import Literal

from mnist_exp.config.schema import Tracking
from mnist_exp.sweep.display import SweepDisplay
from mnist_exp.sweep.engine import Engine
from mnist_exp.sweep.executors.base import TrialExecutor
from mnist_exp.sweep.pruners.median import MedianPruner
from mnist_exp.sweep.race import race, scores_of
from mnist_exp.sweep.recorder import TrialRecorder
from mnist_exp.sweep.search import drive
from mnist_exp.sweep.steering import Steering
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.trial import WAIT, Failure, Job, Outcome, Proposal
from mnist_exp.sweep.winner import rank
from mnist_exp.sweep.worker import run_trial
from mnist_exp.tracking.stored_run import TrialRun
from mnist_exp.tracking.sweep_run import SweepRun


class Confirming:
    """Proposes the trainings of a race, and records them: the sampler and the recorder of an engine."""

    has_queue = False

    def __init__(self, recorder: TrialRecorder, steering: Steering, candidates: Sequence[TrialRun]) -> None:
        self.recorder, self.steering = recorder, steering
        self.study, self.record = recorder.study, recorder.record
        self.candidates = {trial.number: trial for trial in candidates}
        self.scores = scores_of(self.record.confirmations())
        self._asked: list[tuple[int, int]] = []  # trial and seed of each training of this process
        self._running: set[tuple[int, int]] = set()

    def ask(self) -> Proposal | Literal["wait"] | None:
        """Returns the next training, None if the race is over or the sweep has other trials to run, or WAIT."""
        most = self.study.settings.confirm_seeds
        stand = race(list(self.candidates), self.scores, most, self.study.objective)
        if not stand.open or self.steering.has_changed:
            return None
        free = next((one for one in stand.open if one not in self._running), None)
        if free is None:
            return WAIT
        self._asked.append(free)
        self._running.add(free)
        return Proposal(len(self._asked) - 1, self.candidates[free[0]].values)

    def tell(self, number: int, score: float | None, pruned_at: int | None = None) -> None:
        """Takes the score of a training; None: it failed."""
        trial, seed = self._asked[number]
        self._running.remove((trial, seed))
        self.scores.setdefault(trial, {})[seed] = score

    def check(self) -> None:
        """Raises OwnershipLost if another process runs the sweep."""
        self.recorder.check()

    def reuse(self, proposal: Proposal) -> Outcome | None:
        """Returns None: a new seed has no result yet."""

    def begin(self, proposal: Proposal) -> Job:
        """Creates the run of a training and returns the job that fills it."""
        trial, seed = self._asked[proposal.number]
        return self.recorder.begin_confirmation(self.candidates[trial], seed)

    def lost(self, job: Job, why: str) -> None:
        """This training runs again: its worker died."""
        self.recorder.lost(job, why)

    def failed(self, job: Job, failure: Failure) -> None:
        """The training failed, and its worker could not record why."""
        self.recorder.failed(job, failure)

    def ended(self, proposal: Proposal, outcome: Outcome) -> bool:
        """The training ended. Returns True, so that sweep.patience does not count it."""
        trial, seed = self._asked[proposal.number]
        shown = str(outcome.failure) if outcome.score is None else f"{outcome.score:.4f}"
        self.recorder.display.say("confirm", f"trial {trial}, new seed {seed + 1}: {shown}")
        return True

    def steer(self, engine: Engine) -> None:
        """Stops or pauses the engine if somebody has asked for it. The rest waits for the end of the race."""
        self.steering.direct(engine)

    def has_changed(self) -> bool:
        """Returns False: what has changed concerns the search, which follows."""
        return False


def confirm(
    study: Study,
    record: SweepRun,
    tracking: Tracking,
    executor: TrialExecutor,
    display: SweepDisplay,
    steering: Steering,
    work: Callable[[Job], Outcome] = run_trial,
) -> Engine | None:
    """Trains the best trials again, as far as the store lacks the results. None if there are not two of them."""
    candidates = rank(study.trials(record), study.objective)[: study.settings.confirm or 0]
    if len(candidates) < 2:
        return None
    recorder = TrialRecorder(study, record, tracking, MedianPruner(study.settings.pruning_trials), display)
    confirming = Confirming(recorder, steering, candidates)
    most = study.settings.confirm_seeds
    display.say("confirm", f"the best {len(candidates)} are trained again, with up to {most} new seeds each")
    settings = study.settings.model_copy(update=dict.fromkeys(("max_trials", "max_epochs", "timeout", "patience")))
    engine = Engine(settings, confirming, executor, work, confirming, steering=confirming)
    drive(engine, record, display, steering)
    return engine
