"""KerasTuner's oracles, driven by ask and tell.

A proposal is a function of the seed, the trial's number and the trials before it. So a sampler needs no file of its
own: after a crash it is told the recorded trials again and continues as it would have.

KerasTuner and Optuna know a choice, or a number of a range, by its place in the parameter's list. Here, between ask and
tell, such values are called codes.
"""

import math
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any, Literal

import keras_tuner
from keras_tuner.src.engine.trial import Trial

from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import format_value
from mnist_exp.sweep.space import Choices, Space, Values
from mnist_exp.sweep.trial import WAIT, Proposal, Queued
from mnist_exp.tracking import tags
from mnist_exp.tracking.stored_run import TrialRun

SCORE = "score"


class Sampler(keras_tuner.Oracle):
    """What all samplers have in common: no generator state, no project files, a failure is told as the worst score."""

    def __init__(self, space: Space, objective: Objective, seed: int, **more: Any) -> None:
        self.space, self.sweep_seed, self._worst = space, seed, objective.worst
        self.pruned_at: dict[str, int] = {}
        self.queue: deque[Queued] = deque()  # taken before anything is drawn
        self.sources: dict[str, str] = {}  # of the trials from the queue, by their id
        self._outside: set[str] = set()  # trials outside of a space that was changed
        self._allowed = {p.name: p.values for p in space.parameters if p.values.enumerable}
        self._choices = {name: allowed.values for name, allowed in self._allowed.items()}
        self._codes = {
            name: {format_value(value): code for code, value in enumerate(values)}
            for name, values in self._choices.items()
        }
        told = keras_tuner.Objective(SCORE, objective.direction)
        super().__init__(objective=told, hyperparameters=hyperparameters(space), **more)
        self.verbose = 0
        self.max_consecutive_failed_trials = math.inf  # the engine stops a sweep

    def ask(self) -> Proposal | Literal["wait"] | None:
        """Returns the next trial, None if there is none, or WAIT if a running trial must end first."""
        number = len(self.trials)
        trial = self.create_trial(f"trial-{number}")
        if trial.status == "RUNNING":
            return self._proposal(trial)
        return WAIT if trial.status == "IDLE" else None

    def tell(self, number: int, score: float | None, pruned_at: int | None = None) -> None:
        """Takes the score of a trial; None: it failed. A score that is not a number counts as a failure.

        pruned_at: the epoch at which it was ended early.
        """
        trial = self.trials[_id(number)]
        if pruned_at is not None:
            self.pruned_at[trial.trial_id] = pruned_at
        failed = score is None or math.isnan(score) or trial.trial_id in self._outside
        self.update_trial(trial.trial_id, {SCORE: self._worst if failed else score})
        trial.status = "COMPLETED"
        self.end_trial(trial)

    @property
    def has_queue(self) -> bool:
        """Whether the next trial is one that somebody has chosen."""
        return bool(self.queue)

    def restore(self, trials: Iterable[TrialRun]) -> None:
        """Puts a new sampler into the state it had after these trials."""
        trials = sorted(trials, key=lambda trial: trial.number)
        taken = {trial.tags.get(tags.PROPOSED_BY) for trial in trials}
        self.queue = deque(queued for queued in self.queue if queued.source not in taken)
        for recorded in trials:
            space = self.hyperparameters.copy()
            # What lies outside of a space that was changed keeps its number and teaches nothing.
            known = recorded.values if self.space.holds(recorded.values) else {}
            space.values = {**self._encode(known), **_tuner_values(recorded.rung)}
            trial = Trial(space, _id(recorded.number), "RUNNING")
            self.trials[trial.trial_id] = trial
            self.start_order.append(trial.trial_id)
            self.ongoing_trials[f"trial-{recorded.number}"] = trial
            if not self.space.holds(recorded.values):
                self._outside.add(trial.trial_id)
            self._record_values(trial)
            self._place(trial)
        for recorded in trials:
            if recorded.outcome != "pending":
                pruned_at = recorded.epochs if recorded.outcome == "pruned" else None
                is_told = recorded.has_score and not recorded.excluded
                self.tell(recorded.number, recorded.score if is_told else None, pruned_at)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Answers KerasTuner's request for a new trial."""
        self._reseed(trial_id)
        codes = self._take_queued(trial_id) or self._draw()
        return {"status": "STOPPED"} if codes is None else {"status": "RUNNING", "values": codes}

    def save(self) -> None:
        """Does nothing: the tracking store is the only record."""

    def _save_trial(self, trial: Trial) -> None:
        """Does nothing: the tracking store is the only record."""

    def _record_values(self, trial: Trial) -> None:
        """Remembers a combination as tried. For a trial outside of the space KerasTuner would make one up."""
        if trial.trial_id not in self._outside:
            super()._record_values(trial)

    def _take_queued(self, trial_id: str) -> Values | None:
        """Returns the codes of the next values of the queue; None if it is empty."""
        if not self.queue:
            return None
        queued = self.queue.popleft()
        self.sources[trial_id] = queued.source
        return self._encode(queued.values)

    def _reseed(self, trial_id: str) -> None:
        self._seed_state = zlib.crc32(f"{self.sweep_seed}/{int(trial_id)}".encode())

    def _draw(self) -> Values | None:
        """Returns the codes of a new trial, None if every combination was tried."""
        raise NotImplementedError

    def _place(self, trial: Trial) -> None:
        """Takes note of a recorded trial."""

    def _proposal(self, trial: Trial) -> Proposal:
        values, source = self._decode(trial.hyperparameters.values), self.sources.get(trial.trial_id, "")
        return Proposal(int(trial.trial_id), values, source=source)

    def _encode(self, values: Mapping[str, Any]) -> Values:
        return {k: self._code(k, v) if k in self._codes else v for k, v in values.items()}

    def _code(self, name: str, value: Any) -> int:
        """Returns the place of a value. A number that was a choice, of a range since, need not be written as there."""
        code = self._codes[name].get(format_value(value))
        return self._allowed[name].index(value) if code is None else code

    def _decode(self, codes: Mapping[str, Any]) -> Values:
        return {k: self._choices[k][v] if k in self._choices else v for k, v in codes.items()}

    def _new_or_next(self, drawn: Values | None) -> Values | None:
        """Returns the codes drawn, else the first that no trial had: KerasTuner gives up after twenty tried ones."""
        if drawn is not None or not self.space.finite:
            return drawn
        return self._first_new(self.space.combinations())

    def _first_new(self, combinations: Iterable[Values]) -> Values | None:
        return next((codes for codes in map(self._encode, combinations) if not self._duplicate(codes)), None)


class GridSampler(Sampler):
    """Every combination once, in the order of Hydra's own multirun."""

    def __init__(self, space: Space, objective: Objective, seed: int) -> None:
        super().__init__(space, objective, seed)
        self._combinations = space.combinations()

    def _draw(self) -> Values | None:
        return self._first_new(self._combinations)


class RandomSampler(Sampler):
    """Values drawn evenly, no combination twice."""

    def _draw(self) -> Values | None:
        return self._new_or_next(self._random_values())


def hyperparameters(space: Space) -> keras_tuner.HyperParameters:
    """Returns KerasTuner's form of the space, with codes."""
    made = keras_tuner.HyperParameters()
    choices = {p.name: p.values for p in space.parameters if isinstance(p.values, Choices)}
    for parameter in space.parameters:
        when, name, allowed = parameter.when, parameter.name, parameter.values
        codes = [choices[when.key].index(one) for one in when.values if one in choices[when.key]] if when else []
        if when and not codes:
            continue  # the space was changed and lacks the values that the condition names
        with made.conditional_scope(when.key, codes) if when else nullcontext():
            if isinstance(allowed, Choices) or allowed.enumerable:
                made.Choice(name, list(range(len(allowed.values))))
            else:
                kind = made.Int if allowed.whole else made.Float
                kind(name, allowed.low, allowed.high, sampling="log" if allowed.log else "linear")
    return made


def _tuner_values(rung: Mapping[str, Any] | None) -> dict[str, Any]:
    """What KerasTuner's Hyperband keeps among the values of a trial."""
    if rung is None:
        return {}
    parent = {} if rung["parent"] is None else {"tuner/trial_id": _id(rung["parent"])}
    return {"tuner/epochs": rung["epochs"], "tuner/bracket": rung["bracket"], "tuner/round": rung["number"], **parent}


def _id(number: int) -> str:
    return f"{number:04d}"
