"""Answers what people ask of a sweep while it runs: stop, pause, continue, more, add, retry, widen.

A thread looks for requests in the store, so that a trial in this process delays no answer. Once an answer is written,
what it changes is part of the sweep's record; the engine takes it over before it starts the next trial.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mnist_exp.config.compose import Source
from mnist_exp.config.run_config import format_value
from mnist_exp.errors import ConfigError, Problem, TrackingError, UserError
from mnist_exp.log import log_line
from mnist_exp.sweep.engine import Engine
from mnist_exp.sweep.feed import read_added
from mnist_exp.sweep.samplers import create_sampler
from mnist_exp.sweep.space import Choices, Parameter, Space, Values
from mnist_exp.sweep.stored_values import StoredTokens
from mnist_exp.sweep.study import Study
from mnist_exp.sweep.syntax import read_parameter
from mnist_exp.sweep.trial import Queued
from mnist_exp.sweep.trial_configs import TrialConfigs
from mnist_exp.sweep.winner import rank
from mnist_exp.tracking import tags
from mnist_exp.tracking.requests import OF_A_PROCESS, REQUEST, Answer, Change, Request, read_requests, write_answer
from mnist_exp.tracking.stored_run import StoredRun, TrialRun
from mnist_exp.tracking.sweep_run import SweepRun

NAMED = 20  # trials in an answer
RECORD = "sweep-{}.json"  # the space after a request of this number


@dataclass(frozen=True)
class Accepted:
    """What an accepted request changes. text: what follows. study: the new one; None if it stays."""

    text: str
    change: Change = field(default_factory=Change)
    study: Study | None = None


class Steering:
    """The requests to a sweep that this process runs.

    source: where the configs are. say: shows a line in the terminal. is_paused, is_stopping, is_ending: what the engine
    is to do; ending means that the running trials end at once. has_changed: whether the study is another one since the
    search has asked last.
    """

    def __init__(self, study: Study, record: SweepRun, source: Source, say: Callable[[str, str], None]) -> None:
        self.study, self.record, self.source, self.say = study, record, source, say
        self.is_paused = self.is_stopping = self.is_ending = False
        self.has_changed = False
        self._closed = False
        self._decided: dict[int, Accepted] = {}  # by request: what is not effective yet
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Answers what was asked while no process ran the sweep. Call it before the engine starts."""
        self.look(self.record.fetch())
        self.has_changed = False

    def look(self, sweep: StoredRun) -> None:
        """Answers the requests that wait."""
        with self._lock:
            if self._closed:
                return
            for asked in read_requests(sweep):
                if asked.answer is None:
                    self._answer(asked.request)
                elif asked.request.number in self._decided:  # the store was away before it was effective
                    self._conclude(asked.request, asked.answer)

    def direct(self, engine: Engine) -> None:
        """Pauses, stops or ends an engine, as people have asked, or lets it go on."""
        engine.paused, engine.ending = self.is_paused, self.is_ending
        engine.stopping = engine.stopping or self.is_stopping

    def take_change(self, otherwise: bool = False) -> Study | None:
        """Returns the study if trials, space or settings have changed since the last call, else None.

        otherwise: whether trials have changed as only the caller knows.
        """
        with self._lock:
            changed, self.has_changed = self.has_changed or otherwise, False
            return self.study if changed else None

    def close(self) -> bool:
        """Returns whether nothing has changed since `take_change`. If so, requests wait for a resume from here on."""
        with self._lock:
            self._closed = not self.has_changed
            return self._closed

    def _answer(self, request: Request) -> None:
        try:
            if request.number <= self.record.asked_before and request.kind in OF_A_PROCESS:
                raise ConfigError(Problem("no process", f"ran the sweep when {request.by} asked to {request.kind}"))
            decided = HANDLERS[request.kind](self, request)
        except TrackingError:
            raise  # the store is away: the request waits
        except UserError as error:
            answer = self._refuse("; ".join(str(error).splitlines()))
        except Exception as error:  # whatever a config of the user's own raises must not end the sweep
            answer = self._refuse(f"failed: {type(error).__name__}: {' '.join(str(error).split())}")
        else:
            answer = Answer(True, decided.text, self._generation, time.time(), decided.change)
            self._decided[request.number] = decided
        self._conclude(request, write_answer(self.record.store, self.record.id, request.number, answer))

    def _refuse(self, text: str) -> Answer:
        return Answer(False, text, self._generation, time.time())

    @property
    def _generation(self) -> int:
        return self.record.ownership.owner.generation

    def _conclude(self, request: Request, answer: Answer) -> None:
        """Makes a request effective whose answer is written, and shows the answer."""
        if answer.accepted:
            self._apply(request, self._decided[request.number])
        self._decided.pop(request.number, None)
        log_line(f"request {request.number} of {request.by}: {request}: {answer.text}")
        self.say("request", f"{request} ({request.by}): {answer.text}")

    def _apply(self, request: Request, decided: Accepted) -> None:
        """Makes an accepted request effective. What is lost by a kill before, `SweepRun.take_over` does."""
        change = decided.change
        for run_id in change.runs:
            self.record.supersede(run_id, f"the trial runs again, as {request.by} asked")
        self.record.apply({**asdict(change), "request": request.number})
        if request.kind == "stop":
            self.is_stopping, self.is_ending = True, self.is_ending or bool(request.arguments.get("now"))
        elif request.kind in ("pause", "continue"):
            self.is_paused = request.kind == "pause"
        if decided.study:
            self.study, self.has_changed = decided.study, True
        self.has_changed = self.has_changed or bool(change.runs)

    def _stop(self, request: Request) -> Accepted:
        if request.arguments.get("now"):
            return Accepted("the running trials are ended; a resume runs them again")
        return Accepted("no more trials start; the running ones come to their end")

    def _pause(self, request: Request) -> Accepted:
        if self.is_paused:
            raise ConfigError(Problem("the sweep", "is paused already"))
        return Accepted("no more trials start until somebody says continue; the running ones come to their end")

    def _continue(self, request: Request) -> Accepted:
        if not self.is_paused:
            raise ConfigError(Problem("the sweep", "is not paused"))
        return Accepted("trials start again")

    def _more(self, request: Request) -> Accepted:
        settings, space, count = self.study.settings, self.study.space, int(request.arguments["count"])
        self._check_no_brackets("more")
        self._check_epochs()
        if settings.max_trials is None:
            ends = "every combination was tried" if space.finite else "the epochs of sweep.max_epochs are trained"
            raise ConfigError(Problem("the sweep", f"has no number of trials that could grow: it ends when {ends}"))
        total, note = settings.max_trials + count, ""
        trials = self.study.trials(self.record)
        if space.finite and total > (most := space.size + count_outside(self.study, trials)):
            if settings.max_trials >= most:
                rule = f"has {space.size} combinations, all of which are tried by then"
                raise ConfigError(Problem("the space", rule, remedy="widen it"))
            note = f", of which the space allows {most}"
        if settings.patience is not None:
            note += ", and sweep.patience counts from here"
        return self._change_settings(f"up to {total} trials{note}", {"max_trials": total})

    def _add(self, request: Request) -> Accepted:
        self._check_no_brackets("add")
        study, trials = self.study, self.study.trials(self.record)
        best = next(iter(rank(trials, study.objective)), None)
        values = read_added(study, request.arguments["words"], best.values if best else None)
        self._check_new(values, trials)
        most = study.settings.max_trials
        settings = {} if most is None else {"max_trials": most + 1}
        queued = Queued(f"{REQUEST}{request.number}", values)
        changed = replace(study, queue=(*study.queue, queued), settings=study.settings.model_copy(update=settings))
        shown = " ".join(f"{key}={format_value(value)}" for key, value in study.space.assigned(values).items())
        return Accepted(f"it runs next: {shown}{self._opened()}", Change(settings=settings, values=values), changed)

    def _retry(self, request: Request) -> Accepted:
        numbers = list(dict.fromkeys(int(number) for number in request.arguments["trials"]))
        trials = {trial.number: trial for trial in self.study.trials(self.record)}
        for number in numbers:
            if number not in trials:
                raise ConfigError(Problem(f"trial {number}", f"must be one of the {len(trials)} trials of the sweep"))
            if (outcome := trials[number].outcome) != "failed":
                raise ConfigError(Problem(f"trial {number}", "must be a failed one to run again", outcome))
        shown = f"trial{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
        change = Change(runs=tuple(trials[number].run_id for number in numbers))
        return Accepted(f"{shown} will run again{self._opened()}", change)

    def _widen(self, request: Request) -> Accepted:
        self._check_no_brackets("widen")
        study = widen(self.study, request.arguments["words"], self.source)
        trials = self.study.trials(self.record)
        create_sampler(study).restore(trials)  # raises for what must not get into the record
        left_out = [trial.number for trial in trials if not study.space.holds(trial.values)]
        name = RECORD.format(request.number)
        self.record.log_dict(study.space_record(), name)
        note = ""
        if left_out:
            shown = ", ".join(map(str, left_out[:NAMED])) + f" and {len(left_out) - NAMED} more" * (
                len(left_out) > NAMED
            )
            note = f"; the trials {shown} lie outside and may not win"
        taken = {trial.tags.get(tags.PROPOSED_BY) for trial in trials}
        waiting = [one for one in study.queue if one.source not in taken]
        fitted = {one.source for one in waiting if self.study.space.holds(one.values)}
        fits = {one.source for one in waiting if study.space.holds(one.values)}
        if dropped := sorted(fitted - fits):
            note += f"; {', '.join(dropped)} waited and does not fit any more, so it is left out"
        if regained := sorted(fits - fitted):
            note += f"; {', '.join(regained)} was left out, fits again and runs next"
        settings, most = {}, study.settings.max_trials
        if most is not None and dropped != regained:
            settings = {"max_trials": most + _count_added(regained) - _count_added(dropped)}
            study = replace(study, settings=study.settings.model_copy(update=settings))
        text = f"the next trials are chosen from the new space{note}{self._opened()}"
        return Accepted(text, Change(record=name, settings=settings), study)

    def _change_settings(self, text: str, settings: Mapping[str, Any]) -> Accepted:
        changed = replace(self.study, settings=self.study.settings.model_copy(update=dict(settings)))
        return Accepted(text + self._opened(), Change(settings=settings), changed)

    def _check_no_brackets(self, kind: str) -> None:
        if self.study.algorithm == "hyperband":
            rule = f"is a Hyperband, whose brackets hold a fixed number of trials, so that it cannot take {kind!r}"
            raise ConfigError(Problem("the sweep", rule, remedy="start another sweep, with sweep.first=[this one]"))

    def _check_epochs(self) -> None:
        """Raises ConfigError if sweep.max_epochs lets no trial start that the sampler proposes."""
        most = self.study.settings.max_epochs
        if most is not None and sum(trial.trained_epochs for trial in self.study.trials(self.record)) >= most:
            remedy = "resume it with a larger number, or null"
            raise ConfigError(Problem("the sweep", f"has trained the {most} epochs of sweep.max_epochs", remedy=remedy))

    def _check_new(self, values: Values, trials: Sequence[TrialRun]) -> None:
        shown = format_value(values)
        if number := next((trial.number for trial in trials if format_value(trial.values) == shown), None):
            raise ConfigError(Problem("the trial", f"has the values of trial {number}", remedy="change one of them"))
        if any(format_value(queued.values) == shown for queued in self.study.queue):
            raise ConfigError(Problem("the trial", "was added before and waits"))

    def _opened(self) -> str:
        """Says, if the test set was opened, that another winner opens it again."""
        models = len(self.record.openings())
        if not models:
            return ""
        return f"; the test set was opened for {models} model{'s' * (models > 1)}, and another winner will be one more"


HANDLERS: Mapping[str, Callable[[Steering, Request], Accepted]] = {
    "stop": Steering._stop,
    "pause": Steering._pause,
    "continue": Steering._continue,
    "more": Steering._more,
    "add": Steering._add,
    "retry": Steering._retry,
    "widen": Steering._widen,
}


def _count_added(sources: Iterable[str]) -> int:
    """Returns how many trials of the queue somebody has added, each with a place of its own."""
    return sum(source.startswith(REQUEST) for source in sources)


def count_outside(study: Study, trials: Sequence[TrialRun]) -> int:
    """Returns how many trials lie outside of a space that was changed."""
    return sum(not study.space.holds(trial.values) for trial in trials)


def widen(study: Study, words: Sequence[str], source: Source) -> Study:
    """Returns the study with other values of some parameters. words: key=values, in Hydra's sweep syntax.

    Raises ConfigError for a key that the sweep does not choose, and for values that no trial could be run with.
    """
    if isinstance(study.stored, StoredTokens):
        rule = "was begun by an earlier version, which wrote values in another form, and keeps its space"
        raise ConfigError(Problem("the sweep", rule, remedy="start a new one"))
    parameters, places = list(study.space.parameters), set[int]()
    for word in words:
        place, text = _find_parameter(parameters, word)
        if place in places:
            raise ConfigError(Problem(parameters[place].name, "must be given once"))
        places.add(place)
        parameters[place] = read_parameter(parameters[place], text, source)
        name, values = parameters[place].name, parameters[place].values
        if not isinstance(values, Choices) and any(p.when and p.when.key == name for p in parameters):
            rule = "must have choices, because others depend on it"
            raise ConfigError(Problem(name, rule, text, f"write {name}=1,2 or choice(...)"))
    space = Space(tuple(parameters))
    ours = [override for override in study.overrides if not override.startswith(("hydra.", "hydra/"))]
    configs = TrialConfigs.compose(space, ours, source, study.configs.bases)
    return replace(study, configs=configs, widened=True)


def _find_parameter(parameters: Sequence[Parameter], word: str) -> tuple[int, str]:
    """Returns the place of the parameter that a word such as `optimizer.learning_rate=...` names, and its values."""
    named = [(place, p.name) for place, p in enumerate(parameters) if word.startswith(f"{p.name}=")]
    keyed = [(place, p.key) for place, p in enumerate(parameters) if word.startswith(f"{p.key}=")]
    found = named or keyed
    if len(found) == 1:
        (place, name) = found[0]
        return place, word.removeprefix(f"{name}=")
    names = ", ".join(parameter.name for parameter in parameters)
    if found:
        raise ConfigError(Problem(word, "must name one parameter", remedy=f"with its condition: {names}"))
    raise ConfigError(Problem(word, f"must be KEY=VALUES with a key that the sweep chooses: {names}"))
