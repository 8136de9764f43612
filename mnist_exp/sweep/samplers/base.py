"""KerasTuner's oracles, driven by ask and tell.

A proposal is a function of the seed, the trial's number and the trials so far. So an oracle needs no file of its own:
after a crash it is told the recorded trials once more and goes on as it would have.
"""

import math
import zlib
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, Literal

import keras_tuner
from keras_tuner.src.engine.trial import Trial

from mnist_exp.sweep.space import Choices, Space, Values
from mnist_exp.sweep.trial import WAIT, Past, Proposal, Rung

Direction = Literal["max", "min"]
SCORE = "score"


class Replayable(keras_tuner.Oracle):
    """What all have in common: no generator state, no project files, failures told as the worst score."""

    def __init__(self, space: Space, direction: Direction, seed: int, **more: Any) -> None:
        super().__init__(
            objective=keras_tuner.Objective(SCORE, direction),
            hyperparameters=hyperparameters(space),
            allow_new_entries=False,
            tune_new_entries=False,
            **more,
        )
        self.space, self.sweep_seed, self.verbose = space, seed, 0
        self.max_consecutive_failed_trials = math.inf  # the engine stops a sweep
        self._worst = -math.inf if direction == "max" else math.inf

    def ask(self) -> Proposal | Literal["wait"] | None:
        """The next trial; None where there is none, WAIT where one that runs must end first."""
        number = len(self.trials)
        trial = self.create_trial(f"trial-{number}")
        match trial.status:
            case "RUNNING":
                return self._proposal(trial)
            case "IDLE":
                return WAIT
        return None

    def tell(self, number: int, score: float | None) -> None:
        """The score of a trial, None: it failed."""
        trial = self.trials[_id(number)]
        self.update_trial(trial.trial_id, {SCORE: self._worst if score is None else score})
        trial.status = "COMPLETED"
        self.end_trial(trial)

    def restore(self, past: Iterable[Past]) -> None:
        """Puts the oracle, asked nothing yet, where it stood with these trials."""
        past = sorted(past, key=lambda one: one.proposal.number)
        for one in past:
            space = self.hyperparameters.copy()
            space.values = {**one.proposal.values, **_tuner_values(one.proposal.rung)}
            trial = Trial(space, _id(one.proposal.number), "RUNNING")
            self.trials[trial.trial_id] = trial
            self.start_order.append(trial.trial_id)
            self.ongoing_trials[f"trial-{one.proposal.number}"] = trial
            self._record_values(trial)
            self._place(trial)
        for one in past:
            if one.ended:
                self.tell(one.proposal.number, one.score)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        self._reseed(trial_id)
        values = self._values()
        return {"status": "STOPPED"} if values is None else {"status": "RUNNING", "values": values}

    def save(self) -> None:
        """The tracking store is the only record."""

    def _save_trial(self, trial: Trial) -> None:
        """The tracking store is the only record."""

    def _reseed(self, trial_id: str) -> None:
        self._seed_state = zlib.crc32(f"{self.sweep_seed}/{int(trial_id)}".encode())

    def _values(self) -> Values | None:
        """The values of a new trial, None where every combination was tried."""
        raise NotImplementedError

    def _place(self, trial: Trial) -> None:
        """Takes note of a recorded trial."""

    def _proposal(self, trial: Trial) -> Proposal:
        values = dict(trial.hyperparameters.values)
        return Proposal(int(trial.trial_id), values)

    def _untried(self, drawn: Values | None) -> Values | None:
        """The values drawn, else the first that no trial had: after twenty tried ones KerasTuner draws no more."""
        if drawn is not None or not self.space.finite:
            return drawn
        return next((values for values in self.space.combinations() if not self._duplicate(values)), None)


class Grid(Replayable):
    """Every combination once, in the order of Hydra's own multirun."""

    def __init__(self, space: Space, direction: Direction, seed: int) -> None:
        super().__init__(space, direction, seed)
        self._combinations = space.combinations()

    def _values(self) -> Values | None:
        return next((values for values in self._combinations if not self._duplicate(values)), None)


class Random(Replayable):
    """Values drawn evenly, none twice."""

    def _values(self) -> Values | None:
        return self._untried(self._random_values())


def hyperparameters(space: Space) -> keras_tuner.HyperParameters:
    """The space as KerasTuner has it."""
    found = keras_tuner.HyperParameters()
    for parameter in space.parameters:
        when, name, allowed = parameter.when, parameter.name, parameter.values
        with found.conditional_scope(when.key, list(when.tokens)) if when else nullcontext():
            if isinstance(allowed, Choices):
                found.Choice(name, list(allowed.tokens))
            elif allowed.enumerable:
                found.Choice(name, allowed.values, ordered=True)
            else:
                kind = found.Int if allowed.whole else found.Float
                kind(name, allowed.low, allowed.high, sampling="log" if allowed.log else "linear")
    return found


def _tuner_values(rung: Rung | None) -> dict[str, Any]:
    """What KerasTuner's Hyperband keeps among the values of a trial."""
    if rung is None:
        return {}
    parent = {} if rung.parent is None else {"tuner/trial_id": _id(rung.parent)}
    return {"tuner/epochs": rung.epochs, "tuner/bracket": rung.bracket, "tuner/round": rung.number, **parent}


def _id(number: int) -> str:
    return f"{number:04d}"
