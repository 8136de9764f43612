"""KerasTuner's oracles, driven by ask and tell; the only module that knows KerasTuner and Optuna.

A proposal is a function of the seed, the trial's number and the trials so far. So an oracle needs no file of its own:
after a crash it is told the recorded trials once more and goes on as it would have.
"""

import math
import warnings
import zlib
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import keras_tuner
import optuna
from keras_tuner.src.engine.trial import Trial

from mnist_exp.sweep.proposal import WAIT, Past, Proposal, Rung
from mnist_exp.sweep.space import Choices, Parameter, Space, Values
from mnist_exp.sweep.study import Study

Direction = Literal["max", "min"]

optuna.logging.set_verbosity(optuna.logging.WARNING)
SCORE = "score"
HISTORY = 200  # trials that TPE looks at: half the best, half the newest; all of 1,000 would cost 70 ms a proposal


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
        self._seed_state = _seed(self.sweep_seed, trial_id)
        values = self._values()
        return {"status": "STOPPED"} if values is None else {"status": "RUNNING", "values": values}

    def save(self) -> None:
        """The tracking store is the only record."""

    def _save_trial(self, trial: Trial) -> None:
        """The tracking store is the only record."""

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


class Hyperband(Replayable, keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband (Li et al. 2018): many short trainings, the better ones continued.

    epochs: those of a training that goes all the way; factor: one trial in so many is promoted to the next rung;
    iterations: how often all brackets are run.
    """

    def __init__(
        self, space: Space, direction: Direction, seed: int, *, epochs: int, factor: int, iterations: int
    ) -> None:
        super().__init__(space, direction, seed, max_epochs=epochs, factor=factor, hyperband_iterations=iterations)

    @property
    def total(self) -> int:
        """The number of trials of all brackets, where no space is too small for them."""
        brackets = range(self._get_num_brackets())
        sizes = [self._get_size(b, rung) for b in brackets for rung in range(self._get_num_rounds(b))]
        return int(self.hyperband_iterations * sum(sizes))

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        self._seed_state = _seed(self.sweep_seed, trial_id)
        return keras_tuner.oracles.HyperbandOracle.populate_space(self, trial_id)

    def _random_values(self) -> Values | None:
        return self._untried(super()._random_values())

    def _proposal(self, trial: Trial) -> Proposal:
        values = {k: v for k, v in trial.hyperparameters.values.items() if not k.startswith("tuner/")}
        tuner = {k.removeprefix("tuner/"): v for k, v in trial.hyperparameters.values.items() if k not in values}
        parent = tuner.get("trial_id")
        bracket = next(
            b for b in self._brackets if any(info["id"] == trial.trial_id for info in b["rounds"][tuner["round"]])
        )
        return Proposal(
            int(trial.trial_id),
            values,
            Rung(bracket["bracket_num"], tuner["round"], tuner["epochs"], None if parent is None else int(parent)),
        )

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
            rounds = next(
                bracket["rounds"]
                for bracket in self._brackets
                if number < len(bracket["rounds"])
                and any(info["id"] == parent for info in bracket["rounds"][number - 1])
            )
        rounds[number].append({"past_id": parent, "id": trial.trial_id})


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


def _tuner_values(rung: Rung | None) -> dict[str, Any]:
    """What KerasTuner's Hyperband keeps among the values of a trial."""
    if rung is None:
        return {}
    parent = {} if rung.parent is None else {"tuner/trial_id": _id(rung.parent)}
    return {"tuner/epochs": rung.epochs, "tuner/bracket": rung.bracket, "tuner/round": rung.number, **parent}


def _id(number: int) -> str:
    return f"{number:04d}"


def _seed(seed: int, trial_id: str) -> int:
    return zlib.crc32(f"{seed}/{int(trial_id)}".encode())


def oracle_of(study: Study) -> Replayable:
    """The oracle a study asks for, asked nothing yet."""
    given = study.space, study.settings.direction, study.settings.seed
    if study.algorithm == "hyperband":
        epochs = max(base.config.training.epochs for base in study.configs.bases.values())
        return Hyperband(*given, epochs=epochs, factor=study.settings.factor, iterations=study.settings.iterations)
    return ORACLES[study.algorithm](*given)


ORACLES = {"grid": Grid, "random": Random, "tpe": Tpe}


def importances(space: Space, direction: Direction, scores: Sequence[tuple[Values, float]]) -> dict[str, float]:
    """How much each parameter explains of the scores (Optuna's fANOVA), by name; those of a condition within it.

    Parameters that never changed, or in fewer than 4 trials, are left out.
    """
    tpe, found = Tpe(space, direction, 0), dict[str, float]()
    free = [p for p in space.parameters if p.when is None]
    conditions = dict.fromkeys(p.when for p in space.parameters if p.when)
    for parameters in [free, *([p for p in space.parameters if p.when == when] for when in conditions)]:
        names = {p.name for p in parameters}
        kept = [(v, s) for v, s in scores if names <= v.keys()]
        varied = {name for name in names if len({v[name] for v, _ in kept}) > 1}
        if len(kept) < 4 or not varied or len({score for _, score in kept}) < 2:
            continue
        study = tpe.study_of([({name: values[name] for name in varied}, score) for values, score in kept])
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found |= optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found
