"""Numbers that a compiled program reads from variables, so that it also serves trainings with other values.

A rate of dropout, a beta of Adam or the rate from which a schedule begins is a Python number, which a trace writes into
the program as a constant. For a trace, `Numbers` puts a `Varying` into the place of each. Python computes with it as
with the number itself; only what reaches TensorFlow becomes a variable, so the results are the same to the bit. What
code asks about a number (`rate > 0`, `float(rate)`) becomes a condition: other values may use the program if the answer
is the same for them.
"""

import numbers
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mnist_exp.training.schedules import Warmup
from mnist_exp.training.target_forms import WithTargets

Values = Sequence[float]  # of the numbers of one net, in the order of their places
Formula = Callable[[Values], Any]
# Layers whose rate may vary: it is used in the type in which they compute.
LAYERS = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
TYPES = (tf.float32, tf.int32, tf.bfloat16, tf.float16)
MOST = 256  # numbers of one type that a program reads; further ones become constants
SMOOTHING = "label_smoothing"
OPERATIONS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
QUESTIONS: dict[str, Callable[..., Any]] = {
    "bool": bool,
    "float": float,
    "int": int,
    "hash": hash,
    "repr": repr,
    "format": format,
    "round": round,
}
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")


@dataclass(frozen=True)
class Place:
    """Where a number stands: an entry of the attributes or arguments of an object of Keras."""

    holder: dict[str, Any]
    name: str

    @property
    def value(self) -> Any:
        """The number."""
        return self.holder[self.name]


class Varying:
    """A number in a trace. It answers with the value that it has there, and the answer becomes a condition."""

    def __init__(self, owner: "Numbers", formula: Formula) -> None:
        self.owner, self.formula = owner, formula

    def __tf_tensor__(self, dtype: tf.DType | None = None, name: str | None = None) -> tf.Tensor:
        whole = isinstance(self.formula(self.owner.values), int)
        return self.owner.read(self.formula, tf.as_dtype(dtype or (tf.int32 if whole else tf.float32)))


numbers.Real.register(Varying)  # TensorFlow's dropout treats other objects as tensors, which it rounds differently


def _formula_of(value: Any) -> Formula | None:
    if isinstance(value, Varying):
        return value.formula
    return (lambda values: value) if isinstance(value, int | float) else None


def _calculation(operation: Callable[..., Any], reverse: bool = False) -> Callable[..., Any]:
    def method(self: Varying, *others: Any) -> Any:
        formulas = [_formula_of(one) for one in (self, *others)]
        if None in formulas:
            return NotImplemented  # the other is a tensor, which converts this one
        if reverse:
            formulas.reverse()
        return Varying(self.owner, lambda values: operation(*(formula(values) for formula in formulas if formula)))

    return method


def _question(asked: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Varying, *others: Any) -> Any:
        formulas = [_formula_of(one) or (lambda values, one=one: one) for one in (self, *others)]
        return self.owner.answer(lambda values: asked(*(formula(values) for formula in formulas)))

    return method


for _name in OPERATIONS:
    setattr(Varying, f"__{_name}__", _calculation(getattr(operator, _name)))
    setattr(Varying, f"__r{_name}__", _calculation(getattr(operator, _name), reverse=True))
for _name in ("neg", "pos", "abs"):
    setattr(Varying, f"__{_name}__", _calculation(getattr(operator, _name)))
for _name in COMPARISONS:
    setattr(Varying, f"__{_name}__", _question(getattr(operator, _name)))
for _name, _asked in QUESTIONS.items():
    setattr(Varying, f"__{_name}__", _question(_asked))


@contextmanager
def replaced(places: Sequence[Place], values: Sequence[Any]) -> Iterator[None]:
    """Puts other values into these places until the end of the block."""
    before = [place.value for place in places]
    for place, value in zip(places, values, strict=True):
        place.holder[place.name] = value
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.holder[place.name] = value


def blank(places: Sequence[Place]) -> AbstractContextManager[None]:
    """Puts the same number into all of these places."""
    return replaced(places, [type(place.value)(1) for place in places])


@dataclass
class Numbers:
    """The numbers that may vary between the trainings of one program.

    values: those of the trace. conditions: formulas and the answers that they must have. read_formulas: of what the
    program reads, by type, in the order of their places in the variable of this type.
    """

    values: Values
    conditions: list[tuple[Formula, Any]] = field(default_factory=list)
    read_formulas: dict[tf.DType, list[Formula]] = field(default_factory=lambda: {dtype: [] for dtype in TYPES})

    def __post_init__(self) -> None:  # no variable can be created in a trace
        self.variables = {dtype: tf.Variable(np.zeros(MOST, dtype.as_numpy_dtype)) for dtype in TYPES}

    def in_place_of(self, places: Sequence[Place]) -> AbstractContextManager[None]:
        """Puts these numbers into their places for a trace."""
        return replaced(places, [Varying(self, operator.itemgetter(index)) for index in range(len(places))])

    def answer(self, formula: Formula) -> Any:
        """Returns the value of a formula in the trace, which then holds for every training of the program."""
        found = formula(self.values)
        self.conditions.append((formula, found))
        return found

    def read(self, formula: Formula, dtype: tf.DType) -> tf.Tensor:
        """Returns the value of a formula, in the trace, as it is when the program runs."""
        formulas = self.read_formulas.get(dtype)
        if formulas is None or len(formulas) == MOST:
            return tf.constant(self.answer(formula), dtype)
        formulas.append(formula)
        return self.variables[dtype].read_value()[len(formulas) - 1]

    def accepts(self, values: Values) -> bool:
        """Whether the program computes the right thing for these values."""
        return all(formula(values) == answer for formula, answer in self.conditions)

    def assign(self, values: Values) -> None:
        """Sets the variables for a training with these values."""
        for dtype, formulas in self.read_formulas.items():
            if formulas:
                found = [formula(values) for formula in formulas]
                padded = np.array(found + [0] * (MOST - len(found)), dtype.as_numpy_dtype)
                self.variables[dtype].assign(padded)


def find_numbers(model: keras.Model) -> list[Place]:
    """Returns the places of the numbers of a compiled model that may vary. Those of code outside Keras never do."""
    places = [
        Place(vars(layer), "rate")
        for layer in model._flatten_layers()
        if type(layer).__name__ in LAYERS and is_of_keras(layer)
    ]
    schedule = model.optimizer._learning_rate
    for holder in (model.optimizer, schedule, getattr(schedule, "after", None)):
        if isinstance(holder, keras.Optimizer | keras.optimizers.schedules.LearningRateSchedule):
            places += _attributes(holder)
    arguments = getattr(model.loss, "_fn_kwargs", {})
    if is_of_keras(model.loss) and isinstance(arguments.get(SMOOTHING), float):
        places.append(Place(arguments, SMOOTHING))
    return places


def _attributes(holder: Any) -> list[Place]:
    """The numbers of an optimizer or a schedule that its config names and that it keeps as they are."""
    if not is_of_keras(holder):
        return []
    kept = vars(holder)
    return [
        Place(kept, name)
        for name, value in holder.get_config().items()
        if type(value) is float and type(kept.get(name)) is float and kept[name] == value
    ]


def is_of_keras(made: Any) -> bool:
    """Whether this is an object of one of Keras's own classes, or of this package's ones beside them."""
    if type(made) is WithTargets:
        return is_of_keras(made.metric)
    return type(made).__module__.startswith("keras.") or type(made) is Warmup
