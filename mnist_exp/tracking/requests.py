"""What people ask of a sweep: parameters of its run that hold the requests, and tags with the answers.

Any process may ask. The process that runs the sweep answers, and an accepted answer holds what it changes: so a process
that resumes the sweep finds every change again.
"""

import json
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from mnist_exp.errors import Problem, TrackingError
from mnist_exp.secrets import hide
from mnist_exp.tracking import tags
from mnist_exp.tracking.environment import user_name
from mnist_exp.tracking.owner import OWNER
from mnist_exp.tracking.store import Store, store_errors
from mnist_exp.tracking.stored_run import StoredRun, fetch_run

REQUEST = "request/"  # a parameter, request/1 and so on: parameters cannot be changed, so each has one author
LONGEST = 5500  # characters of a request: MLflow keeps 6,000 of a parameter
LONGEST_TEXT, LONGEST_ANSWER = 1000, 7500  # characters: MLflow cuts a tag at 8,000
LOOK = 0.5  # seconds between looks for an answer

Kind = Literal["stop", "pause", "continue", "more", "add", "retry", "widen"]
OF_A_PROCESS: tuple[Kind, ...] = ("stop", "pause", "continue")  # these mean a process, which must run


@dataclass(frozen=True)
class Request:
    """What somebody asks of a sweep. arguments: plain values, which depend on the kind. when: seconds since 1970.

    token: no other request has it. The store would take two equal texts for one.
    """

    kind: Kind
    arguments: Mapping[str, Any]
    by: str
    when: float
    token: str = ""
    number: int = 0

    def __str__(self) -> str:
        return " ".join([self.kind, *map(str, self.arguments.get("words", ()))])


@dataclass(frozen=True)
class Change:
    """What an accepted request changes for good.

    settings: keys of `sweep`. record: a file of the sweep's run with another space and other configs. values: of a
    trial that was added. runs: those of failed trials that run again.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    record: str | None = None
    values: Mapping[str, Any] | None = None
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The answer to a request. text: what follows, or why it was refused. generation: of the owner who answered."""

    accepted: bool
    text: str
    generation: int
    when: float
    change: Change = field(default_factory=Change)

    @classmethod
    def from_tag(cls, text: str) -> Self:
        """Returns the answer that a tag holds; a refusal that says so if it cannot be read."""
        try:
            values = json.loads(text)
            change = values.pop("change")
            return cls(**values, change=Change(**{**change, "runs": tuple(change["runs"])}))
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls(False, "its answer in the store cannot be read", 0, 0.0)


@dataclass(frozen=True)
class Asked:
    """A request with its answer; None if it waits for one."""

    request: Request
    answer: Answer | None


def read_requests(sweep: StoredRun) -> list[Asked]:
    """Returns the requests to a sweep with their answers, in the order in which they were made."""
    asked = {int(k.removeprefix(REQUEST)): v for k, v in sweep.params.items() if k.startswith(REQUEST)}
    answers = {int(k.removeprefix(tags.ANSWER)): v for k, v in sweep.tags.items() if k.startswith(tags.ANSWER)}
    return [
        Asked(
            Request(**json.loads(asked[number]), number=number),
            Answer.from_tag(answers[number]) if number in answers else None,
        )
        for number in sorted(asked)
    ]


def is_paused(sweep: StoredRun) -> bool:
    """Whether the process that runs the sweep, if there is one, starts no trials because somebody has paused it."""
    answered = [one for one in read_requests(sweep) if one.answer and one.answer.accepted]
    generations = [int(key.removeprefix(OWNER)) for key in sweep.params if key.startswith(OWNER)]
    states = [
        one.request.kind == "pause"
        for one in answered
        if one.request.kind in ("pause", "continue") and one.answer and one.answer.generation == max(generations)
    ]
    return bool(states) and states[-1]


def asked_for_more(sweep: StoredRun) -> float:
    """Returns when a request for more or other trials was accepted last, in seconds since 1970; 0 if none was."""
    answers = [one.answer for one in read_requests(sweep) if one.request.kind in ("more", "widen")]
    return max((answer.when for answer in answers if answer and answer.accepted), default=0.0)


def send_request(store: Store, sweep: StoredRun, kind: Kind, arguments: Mapping[str, Any]) -> Request:
    """Writes a request into the store. Raises TrackingError if it is too long or the store does not take it."""
    from mlflow.exceptions import MlflowException

    by, now, token = f"{user_name()}@{socket.gethostname()}", round(time.time(), 3), uuid.uuid4().hex[:12]
    request = Request(kind, arguments, by, now, token)
    values = asdict(request)
    del values["number"]
    text = hide(json.dumps(values))
    if len(text) > LONGEST:
        rule = f"must be a request of at most {LONGEST} characters"
        raise TrackingError(Problem(kind, rule, len(text), "divide it"))
    with store_errors(store.uri):
        while True:
            known = [one.request.number for one in read_requests(fetch_run(store, sweep.id))]
            number = max(known, default=0) + 1
            try:
                store.client.log_param(sweep.id, f"{REQUEST}{number}", text)
            except MlflowException as error:  # somebody else was faster
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
            else:
                return Request(**values, number=number)


def write_answer(store: Store, sweep_id: str, number: int, answer: Answer) -> Answer:
    """Answers a request, and returns the answer as it is kept, with at most LONGEST_TEXT characters of its text.

    From here on, what an accepted one changes is part of the sweep. If the change is too long for a tag, the request is
    refused.
    """
    kept = replace(answer, text=answer.text[:LONGEST_TEXT])
    if len(json.dumps(asdict(kept))) > LONGEST_ANSWER:
        kept = Answer(False, "the change is too long to be kept; divide the request", answer.generation, answer.when)
    store.set_tags(sweep_id, {f"{tags.ANSWER}{number}": hide(json.dumps(asdict(kept)))})
    return kept


def wait_for_answer(
    store: Store, sweep: StoredRun, number: int, seconds: float, is_over: Callable[[StoredRun], bool]
) -> Answer | None:
    """Returns the answer to a request; None if there is none in this time, or once `is_over` holds for the sweep."""
    until = time.monotonic() + seconds
    while True:
        now = fetch_run(store, sweep.id)
        answer = next((one.answer for one in read_requests(now) if one.request.number == number), None)
        if answer or is_over(now) or time.monotonic() > until:
            return answer
        time.sleep(LOOK)
