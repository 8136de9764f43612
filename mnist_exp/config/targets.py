"""Imports the function that a `_target_` names and reads its signature."""

import inspect
import logging
from collections.abc import Callable
from typing import Any, get_type_hints

import hydra.utils
from hydra.errors import InstantiationException

logging.getLogger(hydra.utils.__name__).disabled = True  # it would announce a wrong _target_ a second time


def import_target(target: str) -> Callable[..., Any]:
    """Returns the function or class of this dotted name. Raises ImportError if it cannot be called or inspected."""
    try:
        found = hydra.utils.get_method(target)
        inspect.signature(found)  # builtins may have none
        return found
    except (ImportError, ValueError, AttributeError) as error:
        raise ImportError(" ".join(str(error.__cause__ or error).split())) from error


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
