"""Objects of Keras, or of the user's own code, that a config names: `{_target_: my_losses.focal, gamma: 2.0}`."""

import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mnist_exp.config.targets import call_target, import_target
from mnist_exp.errors import Problem, nearest

TARGET = "_target_"


@dataclass(frozen=True)
class Role:
    """What a component is used for.

    takes: the number of arguments with which a plain function in its place is called. given: arguments that the program
    gives, if the target takes them and the entry does not name them.
    """

    takes: int = 0
    given: tuple[str, ...] = ()


ROLES: Mapping[str, Role] = {
    "training.loss": Role(takes=2),  # targets and probabilities
    "training.metrics": Role(takes=2),
    "training.callbacks": Role(),
    "optimizer.schedule": Role(takes=1, given=("initial_learning_rate", "learning_rate", "decay_steps", "steps")),
    "augmentation": Role(takes=1),
}


def is_component(value: Any) -> bool:
    """Whether a value of a config names an object by `_target_`."""
    return isinstance(value, Mapping) and TARGET in value


def make(key: str, entry: Mapping[str, Any], **given: Any) -> Any:
    """Returns the object that an entry of this key of the config names.

    A class is called with the keys of the entry, and so is a function that returns the object. A function that is the
    object itself, such as a loss of targets and probabilities, is returned with the keys bound.
    """
    target, keys = import_target(str(entry[TARGET])), {name: entry[name] for name in entry if name != TARGET}
    arguments = inspect.signature(target).parameters
    keys = {name: value for name, value in given.items() if name in arguments} | keys
    if not inspect.isclass(target) and ROLES[key].takes == len(_missing(arguments, keys)) > 0:
        return functools.partial(target, **call_target(keys)) if keys else target
    return call_target({TARGET: entry[TARGET], **keys})


def is_function(made: Any) -> bool:
    """Whether this is a plain function, perhaps with arguments bound, and not an object that can be called."""
    return inspect.isroutine(made) or isinstance(made, functools.partial)


def find_component_problems(key: str, entry: Any, place: str = "") -> Iterator[Problem]:
    """Yields what is wrong with an entry of this key. place: how the entry is named, if it is one of a list."""
    place = place or key
    if not is_component(entry):
        remedy = "write {_target_: NAME, key: value}, with the dotted name of a class or function"
        yield Problem(place, "must name an object by its _target_", entry, remedy)
        return
    try:
        target = import_target(str(entry[TARGET]))
    except ImportError as error:
        rule = "must be a class or function that can be imported"
        yield Problem(f"{place}.{TARGET}", rule, entry[TARGET], str(error))
        return
    arguments, role = inspect.signature(target).parameters, ROLES[key]
    keys = [name for name in entry if name not in (TARGET, "_partial_")]
    if not any(one.kind is one.VAR_KEYWORD for one in arguments.values()):
        known = [one.name for one in arguments.values() if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)]
        for name in (name for name in keys if name not in known):
            remedy = nearest(name, known) or f"{entry[TARGET]} takes {', '.join(known) or 'none'}"
            yield Problem(f"{place}.{name}", "does not exist", remedy=remedy)
    missing = [name for name in _missing(arguments, keys) if name not in role.given]
    if missing and (inspect.isclass(target) or len(missing) != role.takes):
        yield Problem(f"{place}.{missing[-1]}", "is missing", remedy=f"give {missing[-1]}, which {entry[TARGET]} needs")


def _missing(arguments: Mapping[str, inspect.Parameter], keys: Any) -> list[str]:
    """The arguments without a default that are not among the keys."""
    variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [
        one.name
        for one in arguments.values()
        if one.default is one.empty and one.kind not in variable and one.name not in keys
    ]
