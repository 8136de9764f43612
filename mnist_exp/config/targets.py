"""Imports the function that a `_target_` names and reads its signature."""

import inspect
import logging
import sys
from collections.abc import Callable
from typing import Any, get_type_hints

import hydra.utils
from hydra.errors import InstantiationException

from mnist_exp.errors import nearest

logging.getLogger(hydra.utils.__name__).disabled = True  # it would announce a wrong _target_ a second time


def import_target(target: str) -> Callable[..., Any]:
    """Returns the function or class of this dotted name. Raises ImportError if it cannot be called or inspected."""
    try:
        found = hydra.utils.get_method(target)
        inspect.signature(found)  # builtins may have none
        return found
    except (ImportError, ValueError, AttributeError) as error:
        reason = _missing_name(target, error.__cause__) or " ".join(str(error.__cause__ or error).split())
        raise ImportError(reason) from error


def _missing_name(target: str, error: BaseException | None) -> str:
    """What the module of a target lacks; empty if it cannot be imported itself."""
    if not isinstance(error, ModuleNotFoundError | AttributeError):
        return ""
    parts = target.split(".")
    count = next((n for n in range(len(parts) - 1, 0, -1) if ".".join(parts[:n]) in sys.modules), 0)
    if isinstance(error, ModuleNotFoundError) and error.name not in [
        ".".join(parts[:n]) for n in (count + 1, len(parts))
    ]:
        return ""  # the module is there, but not what it imports
    found: Any = sys.modules.get(".".join(parts[:count]))
    while count and count < len(parts) and hasattr(found, parts[count]):
        found, count = getattr(found, parts[count]), count + 1
    if not count or count == len(parts):
        return ""
    hint = nearest(parts[count], [name for name in dir(found) if not name.startswith("_")])
    return f"{'.'.join(parts[:count])} has no {parts[count]}" + (f"; {hint}" if hint else "")


def argument_type(function: Callable[..., Any], argument: inspect.Parameter) -> Any:
    """Returns the annotation of an argument; Any if there is none, or one that only a type checker can import."""
    if argument.annotation is argument.empty:
        return Any
    holder = type("Key", (), {"__annotations__": {"key": argument.annotation}, "__module__": function.__module__})
    try:
        return get_type_hints(holder, include_extras=True)["key"]
    except NameError:
        return Any


def call_target(section: dict[str, Any], *given: Any, **more: Any) -> Any:
    """Calls the `_target_` of a section with its keys as plain values. An error arrives as the function raised it.

    A section without one is returned with what the entries inside of it make.
    """
    try:
        return hydra.utils.instantiate(section, *given, **more, _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None
