"""Imports the function that a `_target_` names and reads its signature."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from mnist_exp.config.check import hydra


def _function(target: str) -> Callable:
    try:
        found = hydra.utils.get_method(target)
        inspect.signature(found)  # builtins may have none
        return found
    except (ImportError, ValueError, AttributeError) as error:
        raise ImportError(" ".join(str(error.__cause__ or error).split())) from error


def _hint(function: Callable, parameter: inspect.Parameter) -> Any:
    """What a parameter may hold; Any where nothing is said, or only a name that a type checker knows."""
    if parameter.annotation is parameter.empty:
        return Any
    holder = type("Key", (), {"__annotations__": {"key": parameter.annotation}, "__module__": function.__module__})
    try:
        return get_type_hints(holder, include_extras=True)["key"]
    except NameError:
        return Any
