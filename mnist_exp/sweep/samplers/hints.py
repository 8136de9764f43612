"""Values drawn near those that the author of a space believes to be good."""

import math
from typing import Any

import numpy as np

from mnist_exp.sweep.space import Choices, Numbers, Parameter

FOLLOWED = 0.8  # how often a draw follows what is said to be good: it may be wrong
CHOSEN = 0.5  # how often the best choice is taken then
SPREAD = 0.14  # standard deviation around the best number then, as a share of the range


def draw(parameter: Parameter, rng: np.random.Generator) -> Any:
    """Returns a value of the parameter, drawn evenly if nothing is said to be good."""
    allowed, follows = parameter.values, parameter.best is not None and rng.random() < FOLLOWED
    if isinstance(allowed, Choices):
        if follows and rng.random() < CHOSEN:
            return parameter.best
        return allowed.values[rng.integers(len(allowed.values))]
    place = rng.random()
    if follows:
        place = min(1.0, max(0.0, _place(parameter.best, allowed) + SPREAD * rng.normal()))
    if allowed.enumerable:
        return allowed.values[min(int(place * len(allowed.values)), len(allowed.values) - 1)]
    return _number(place, allowed)


def _place(number: float, allowed: Numbers) -> float:
    """Returns where a number lies in its range, from 0 to 1."""
    low, high, at = (math.log(n) if allowed.log else n for n in (allowed.low, allowed.high, number))
    return (at - low) / (high - low) if high > low else 0.5


def _number(place: float, allowed: Numbers) -> float:
    if allowed.log:
        number = allowed.low * (allowed.high / allowed.low) ** place
    else:
        number = allowed.low + place * (allowed.high - allowed.low)
    number = min(float(allowed.high), max(float(allowed.low), number))
    return round(number) if allowed.whole else number
