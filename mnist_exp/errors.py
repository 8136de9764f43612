"""Errors that a user can correct, as data. The command line prints them without a traceback.

Each class is also a subclass of a builtin exception.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from mnist_exp.secrets import hide


class _Mark(Enum):
    ABSENT = "no value"


ABSENT: Final = _Mark.ABSENT  # a member of an enum stays the same object in another process


@dataclass(frozen=True)
class Problem:
    """One thing to correct. `sentence` reads: `key rule, but got value; remedy`.

    key: a config key, file, run or option. rule: starts with a verb, such as `must be at least 1`.
    """

    key: str
    rule: str
    value: Any = field(default=ABSENT, hash=False)  # may be a list
    remedy: str = ""


def sentence(problem: Problem) -> str:
    """Returns the problem in one line, without secrets."""
    got = "" if problem.value is ABSENT else f", but got {'null' if problem.value is None else repr(problem.value)}"
    return hide(f"{problem.key} {problem.rule}{got}" + (f"; {problem.remedy}" if problem.remedy else ""))


class UserError(Exception):
    """Something outside the program is wrong. `problems` holds every problem that was found."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        found = [problems] if isinstance(problems, Problem) else problems
        self.problems = tuple(dict.fromkeys(found))
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(sentence, self.problems))


class ConfigError(UserError, ValueError):
    """A config key or value cannot be used."""


class DataError(UserError, ValueError):
    """A data set cannot be read, or no classifier can be trained on it."""


class TrackingError(UserError, RuntimeError):
    """A tracking store cannot be used, or does not hold what was asked for."""


class TrainingError(UserError, ArithmeticError):
    """A training cannot continue."""


def nearest(word: str, known: Sequence[str]) -> str:
    """Returns `did you mean X?`, or an empty string if no known word is near."""
    near = difflib.get_close_matches(word.lower(), known, n=1)
    return f"did you mean {near[0]}?" if near else ""
