"""Optuna's TPE sampler inside a KerasTuner oracle."""

import math
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import optuna
from keras_tuner.src.engine.trial import Trial

from mnist_exp.config.objective import Objective
from mnist_exp.sweep.samplers.base import Sampler
from mnist_exp.sweep.space import Choices, Parameter, Space, Values

optuna.logging.set_verbosity(optuna.logging.WARNING)
HISTORY = 200  # trials that TPE looks at: half the best, half the newest; all of 1,000 would cost 70 ms a proposal


class TpeSampler(Sampler):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011); trials that run count as not promising."""

    def __init__(self, space: Space, objective: Objective, seed: int) -> None:
        super().__init__(space, objective, seed)
        self._distributions = {parameter.name: _distribution(parameter) for parameter in space.parameters}
        self._ended: dict[str, optuna.trial.FrozenTrial] = {}

    def _draw(self) -> Values | None:
        study = self._create_study(self._ended.get(t.trial_id) or self._freeze(t) for t in self._considered())
        for attempt in range(5):
            study.sampler = _sampler(self._seed_state + attempt)
            asked = study.ask()
            codes = self._encode(self.space.sample(partial(self._suggest, asked)))
            study.tell(asked, state=optuna.trial.TrialState.FAIL)  # which TPE does not look at
            if not self._duplicate(codes):
                return codes
        return self._new_or_next(self._random_values())

    def create_study(self, scores: Sequence[tuple[Values, float]]) -> optuna.Study:
        """Returns a study of Optuna with finished trials of these values."""
        return self._create_study(self._create_trial(self._encode(values), value=score) for values, score in scores)

    def _suggest(self, asked: optuna.Trial, parameter: Parameter) -> Any:
        name, numbers = parameter.name, parameter.values
        if isinstance(numbers, Choices):
            return numbers.values[asked.suggest_categorical(name, range(len(numbers.values)))]
        if numbers.enumerable:
            return numbers.values[asked.suggest_int(name, 0, len(numbers.values) - 1)]
        if numbers.whole:
            return asked.suggest_int(name, int(numbers.low), int(numbers.high), log=numbers.log)
        return asked.suggest_float(name, numbers.low, numbers.high, log=numbers.log)

    def _create_study(self, trials: Iterable[optuna.trial.FrozenTrial]) -> optuna.Study:
        study = optuna.create_study(direction="maximize" if self.objective.direction == "max" else "minimize")
        study.add_trials(trials)
        return study

    def _considered(self) -> list[Trial]:
        """All running trials and at most HISTORY of the others: half the best, half the newest."""
        ended = [trial for trial in self.trials.values() if trial.status != "RUNNING"]
        if len(ended) > HISTORY:
            best = sorted(ended, key=lambda t: t.score, reverse=self.objective.direction == "max")[: HISTORY // 2]
            chosen = {trial.trial_id for trial in [*best, *ended[-HISTORY // 2 :]]}
            ended = [trial for trial in ended if trial.trial_id in chosen]
        return [*ended, *(trial for trial in self.trials.values() if trial.status == "RUNNING")]

    def _freeze(self, trial: Trial) -> optuna.trial.FrozenTrial:
        states = optuna.trial.TrialState
        given: dict[str, Any] = {"state": states.COMPLETE, "value": trial.score}
        if trial.status == "RUNNING":
            given = {"state": states.RUNNING}
        elif math.isinf(trial.score):
            given = {"state": states.PRUNED}  # without a value TPE counts it as the worst
        frozen = self._create_trial(trial.hyperparameters.values, **given)
        if trial.status != "RUNNING":
            self._ended[trial.trial_id] = frozen
        return frozen

    def _create_trial(self, codes: Values, **given: Any) -> optuna.trial.FrozenTrial:
        distributions = {name: self._distributions[name] for name in codes}
        return optuna.trial.create_trial(params=codes, distributions=distributions, **given)


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Returns TPE that models parameters together, by condition, and takes account of pending trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    allowed = parameter.values
    if isinstance(allowed, Choices):
        return optuna.distributions.CategoricalDistribution(range(len(allowed.values)))
    if allowed.enumerable:
        return optuna.distributions.IntDistribution(0, len(allowed.values) - 1)
    if allowed.whole:
        return optuna.distributions.IntDistribution(int(allowed.low), int(allowed.high), log=allowed.log)
    return optuna.distributions.FloatDistribution(allowed.low, allowed.high, log=allowed.log)
