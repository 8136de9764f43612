"""Hyperband, restored from the recorded trials as every sampler is."""

from typing import Any

import keras_tuner
from keras_tuner.src.engine.trial import Trial

from mnist_exp.sweep.samplers.base import Sampler
from mnist_exp.sweep.space import Values
from mnist_exp.sweep.trial import Proposal, Rung

FACTOR = 3  # unless sweep.factor says otherwise


class HyperbandSampler(Sampler, keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband (Li et al. 2018): many short trainings, the better ones continued.

    max_epochs: those of the last rung. factor: 1 of `factor` trials is promoted to the next rung.
    hyperband_iterations: how often all brackets are run.
    """

    @property
    def total(self) -> int:
        """The number of trials of all brackets, if the space is large enough for them."""
        brackets = range(self._get_num_brackets())
        sizes = [self._get_size(b, rung) for b in brackets for rung in range(self._get_num_rounds(b))]
        return int(self.hyperband_iterations * sum(sizes))

    @property
    def reached(self) -> dict[int, float]:
        """The number of trials that train to each epoch at which a rung ends, in all brackets."""
        rungs = [
            (self._get_epochs(bracket, rung - 1) if rung else 0, self._get_epochs(bracket, rung), size)
            for bracket in range(self._get_num_brackets())
            for rung in range(self._get_num_rounds(bracket))
            if (size := self.hyperband_iterations * self._get_size(bracket, rung))
        ]
        ends = {end for _, end, _ in rungs}
        return {epoch: float(sum(size for begun, end, size in rungs if begun < epoch <= end)) for epoch in ends}

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Answers KerasTuner's request for a new trial."""
        self._reseed(trial_id)
        self._proposed = trial_id
        return keras_tuner.oracles.HyperbandOracle.populate_space(self, trial_id)

    def _random_values(self) -> Values | None:
        return self._take_queued(self._proposed) or self._new_or_next(super()._random_values())

    def _proposal(self, trial: Trial) -> Proposal:
        values = {k: v for k, v in trial.hyperparameters.values.items() if not k.startswith("tuner/")}
        tuner = {k.removeprefix("tuner/"): v for k, v in trial.hyperparameters.values.items() if k not in values}
        parent = tuner.get("trial_id")
        bracket = self._bracket_with(trial.trial_id, tuner["round"])["bracket_num"]
        rung = Rung(bracket, tuner["round"], tuner["epochs"], None if parent is None else int(parent))
        return Proposal(int(trial.trial_id), self._decode(values), rung, self.sources.get(trial.trial_id, ""))

    def _place(self, trial: Trial) -> None:
        values = trial.hyperparameters.values
        number, parent = values["tuner/round"], values.get("tuner/trial_id")
        if parent is None:
            rounds = self._brackets[-1]["rounds"]
            if len(rounds[0]) == self._get_size(self._brackets[-1]["bracket_num"], 0):
                self._increment_bracket_num()
                self._start_new_bracket()
                rounds = self._brackets[-1]["rounds"]
        else:
            rounds = self._bracket_with(parent, number - 1)["rounds"]
        rounds[number].append({"past_id": parent, "id": trial.trial_id})

    def _bracket_with(self, trial_id: str, number: int) -> dict[str, Any]:
        """Returns the bracket that has this trial in the round of this number."""
        brackets = (bracket for bracket in self._brackets if number < len(bracket["rounds"]))
        return next(b for b in brackets if any(info["id"] == trial_id for info in b["rounds"][number]))
