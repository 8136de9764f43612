"""Optuna's sampler inside a KerasTuner oracle, and its view of what mattered."""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import optuna
from keras_tuner.src.engine.trial import Trial

from mnist_exp.sweep.samplers.base import Direction, Replayable
from mnist_exp.sweep.space import Choices, Parameter, Space, Values

optuna.logging.set_verbosity(optuna.logging.WARNING)
HISTORY = 200  # trials that TPE looks at: half the best, half the newest; all of 1,000 would cost 70 ms a proposal


class Tpe(Replayable):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011); trials that run count as not promising."""

    def __init__(self, space: Space, direction: Direction, seed: int) -> None:
        super().__init__(space, direction, seed)
        self._distributions = {parameter.name: _distribution(parameter) for parameter in space.parameters}
        self._parameters = {parameter.name: parameter for parameter in space.parameters}
        self._ended: dict[str, optuna.trial.FrozenTrial] = {}

    def _values(self) -> Values | None:
        study = self._study()
        for attempt in range(5):
            study.sampler = _sampler(self._seed_state + attempt)
            asked = study.ask()
            values = self.space.filled(partial(self._suggested, asked))
            study.tell(asked, state=optuna.trial.TrialState.FAIL)  # which TPE does not look at
            if not self._duplicate(values):
                return values
        return self._untried(self._random_values())

    def study_of(self, scores: Sequence[tuple[Values, float]]) -> optuna.Study:
        """Finished trials with these values, as Optuna knows them."""
        study = self._new_study()
        for values, score in scores:
            coded = {name: self._coded(name, value) for name, value in values.items()}
            distributions = {name: self._distributions[name] for name in values}
            study.add_trial(optuna.trial.create_trial(params=coded, distributions=distributions, value=score))
        return study

    def _suggested(self, asked: optuna.Trial, parameter: Parameter) -> str | float:
        name, numbers = parameter.name, parameter.values
        if isinstance(numbers, Choices):
            return asked.suggest_categorical(name, numbers.tokens)
        if numbers.enumerable:
            return numbers.values[asked.suggest_int(name, 0, len(numbers.values) - 1)]
        if numbers.whole:
            return asked.suggest_int(name, int(numbers.low), int(numbers.high), log=numbers.log)
        return asked.suggest_float(name, numbers.low, numbers.high, log=numbers.log)

    def _study(self) -> optuna.Study:
        """The trials that tell most, as Optuna knows them."""
        study = self._new_study()
        for trial in self._telling():
            study.add_trial(self._ended.get(trial.trial_id) or self._frozen(trial))
        return study

    def _new_study(self) -> optuna.Study:
        return optuna.create_study(direction="maximize" if self.objective.direction == "max" else "minimize")

    def _telling(self) -> list[Trial]:
        """All that run and at most HISTORY of the others: half the best, half the newest."""
        ended = [trial for trial in self.trials.values() if trial.status != "RUNNING"]
        if len(ended) > HISTORY:
            best = sorted(ended, key=lambda t: t.score, reverse=self.objective.direction == "max")[: HISTORY // 2]
            chosen = {trial.trial_id for trial in [*best, *ended[-HISTORY // 2 :]]}
            ended = [trial for trial in ended if trial.trial_id in chosen]
        return [*ended, *(trial for trial in self.trials.values() if trial.status == "RUNNING")]

    def _frozen(self, trial: Trial) -> optuna.trial.FrozenTrial:
        states = optuna.trial.TrialState
        values = {name: self._coded(name, value) for name, value in trial.hyperparameters.values.items()}
        given: dict[str, Any] = {"state": states.COMPLETE, "value": trial.score}
        if trial.status == "RUNNING":
            given = {"state": states.RUNNING}
        elif math.isinf(trial.score):
            given = {"state": states.PRUNED}  # without a value TPE counts it as the worst
        frozen = optuna.trial.create_trial(
            params=values, distributions={name: self._distributions[name] for name in values}, **given
        )
        if trial.status != "RUNNING":
            self._ended[trial.trial_id] = frozen
        return frozen

    def _coded(self, name: str, value: str | float) -> str | float:
        """A value as Optuna has it: of a range only the place in it."""
        numbers = self._parameters[name].values
        if isinstance(value, str) or isinstance(numbers, Choices) or not numbers.enumerable:
            return value
        return numbers.values.index(value)


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    """TPE that sees how parameters go together, those of each condition apart, and reckons with pending trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    allowed = parameter.values
    if isinstance(allowed, Choices):
        return optuna.distributions.CategoricalDistribution(allowed.tokens)
    if allowed.enumerable:
        return optuna.distributions.IntDistribution(0, len(allowed.values) - 1)
    if allowed.whole:
        return optuna.distributions.IntDistribution(int(allowed.low), int(allowed.high), log=allowed.log)
    return optuna.distributions.FloatDistribution(allowed.low, allowed.high, log=allowed.log)
