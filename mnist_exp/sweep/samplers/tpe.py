"""Optuna's TPE sampler inside a KerasTuner oracle."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import optuna

from mnist_exp.config.objective import Objective
from mnist_exp.sweep.samplers.base import Sampler
from mnist_exp.sweep.samplers.hints import draw
from mnist_exp.sweep.space import Choices, Parameter, Space, Values

optuna.logging.set_verbosity(optuna.logging.WARNING)
FIRST = 10  # trials that are drawn, where the space says what is good
CROWD = 3  # trials that run beside the new one: from then on, TPE knows little of what it has proposed last, and
DRAWN = 0.2  # this share of the trials is drawn
ATTEMPTS = 5  # at a combination that no trial had


class TpeSampler(Sampler):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011); trials that run count as not promising."""

    def __init__(self, space: Space, objective: Objective, seed: int) -> None:
        super().__init__(space, objective, seed)
        self._distributions = {parameter.name: _distribution(parameter) for parameter in space.parameters}
        self._study = self._create_study([])
        self._numbers: dict[str, int] = {}  # of trials in Optuna's study, by their id here
        self._running: set[str] = set()  # those that run, as far as Optuna knows

    def _draw(self) -> Values | None:
        rng, beside = np.random.default_rng(self._seed_state), len(self.ongoing_trials)
        hinted = any(parameter.best is not None for parameter in self.space.parameters)
        if (hinted and len(self.trials) < FIRST) or (beside >= CROWD and rng.random() < DRAWN):
            for _ in range(ATTEMPTS):
                codes = self._encode(self.space.sample(partial(draw, rng=rng)))
                if not self._duplicate(codes):
                    return codes
        self._tell_optuna()
        for attempt in range(ATTEMPTS):
            self._seed(self._seed_state + attempt)
            asked = self._study.ask()
            codes = self._encode(self.space.sample(partial(self._suggest, asked)))
            self._study.tell(asked, state=optuna.trial.TrialState.FAIL)  # which TPE does not look at
            if not self._duplicate(codes):
                return codes
        return self._new_or_next(self._random_values())

    def _seed(self, number: int) -> None:
        """Makes the next proposal follow from the trials and this number. A new sampler would look at all again."""
        sampler = self._study.sampler
        assert isinstance(sampler, optuna.samplers.TPESampler)
        for part in (sampler, sampler._random_sampler):
            part._rng.rng.seed(number % 2**32)

    def _tell_optuna(self) -> None:
        """Tells Optuna of the trials that have begun and ended since the last time."""
        states = optuna.trial.TrialState
        for key, trial in self.trials.items():
            if key not in self._numbers:
                self._numbers[key] = len(self._study.get_trials(deepcopy=False))
                self._study.add_trial(self._create_trial(trial.hyperparameters.values, state=states.RUNNING))
                self._running.add(key)
        for key in sorted(self._running - {trial.trial_id for trial in self.ongoing_trials.values()}):
            number, score, epoch = self._numbers[key], self.trials[key].score, self.pruned_at.get(key)
            if math.isinf(score):
                self._study.tell(number, state=states.PRUNED)  # without a value TPE counts it as the worst
            elif epoch:
                optuna.Trial(self._study, number).report(score, epoch)
                self._study.tell(number, state=states.PRUNED)
            else:
                self._study.tell(number, score)
            self._running.remove(key)

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
        sampler = optuna.samplers.TPESampler()
        study = optuna.create_study(
            direction="maximize" if self.objective.direction == "max" else "minimize", sampler=sampler
        )
        study.add_trials(trials)
        return study

    def _create_trial(self, codes: Values, **given: Any) -> optuna.trial.FrozenTrial:
        distributions = {name: self._distributions[name] for name in codes}
        return optuna.trial.create_trial(params=codes, distributions=distributions, **given)


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    allowed = parameter.values
    if isinstance(allowed, Choices):
        return optuna.distributions.CategoricalDistribution(range(len(allowed.values)))
    if allowed.enumerable:
        return optuna.distributions.IntDistribution(0, len(allowed.values) - 1)
    if allowed.whole:
        return optuna.distributions.IntDistribution(int(allowed.low), int(allowed.high), log=allowed.log)
    return optuna.distributions.FloatDistribution(allowed.low, allowed.high, log=allowed.log)
