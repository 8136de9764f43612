"""Spaces as the tests write them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mnist_exp.config.compose import PACKAGE_SOURCE
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.space import Parameter, Space
from mnist_exp.sweep.syntax import read_space

FILE = "sweeps/mine.yaml"
RATES = {
    "optimizer": "adam, adadelta",
    "when": {
        "optimizer=adam": {"optimizer.learning_rate": "0.001, 0.01, 0.1", "optimizer.beta_1": "0.8, 0.9"},
        "optimizer=adadelta": {"optimizer.learning_rate": "0.5, 1.0"},
    },
}


def parse(section: Mapping[str, Any], file: str, overrides: Sequence[str], choices: Mapping[str, str]) -> Space:
    """The space of a study and a command line. Raises ConfigError with every problem."""
    found, problems = read_space(section, file, overrides, choices, PACKAGE_SOURCE)
    if problems:
        raise ConfigError(problems)
    return found


def space(section: Mapping[str, Any] | None = None, *overrides: str, **choices: str) -> Space:
    return parse(section or {}, FILE, overrides, {"model": "mlp", "optimizer": "adam", **choices})


def only(text: str, key: str = "training.batch_size") -> Parameter:
    (parameter,) = space({key: text}).parameters
    return parameter


def values(text: str, key: str = "training.batch_size") -> list[Any]:
    """What a trial may get, as it stands in its config."""
    return [*only(text, key).grid]


def keys(found: Space) -> dict[str, list[Any]]:
    return {parameter.name: [*parameter.grid] for parameter in found.parameters}


def refusal(section: Mapping[str, Any] | None = None, *overrides: str, **choices: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        space(section, *overrides, **choices)
    return str(refused.value).splitlines()
