"""Epochs of training and validation as one compiled function of TensorFlow.

`model.fit` returns to Python after every batch and traces every model anew. A `Program` runs many batches in one call,
on data that is in memory as tensors; it only gets their order. It is traced with one model and then serves every model
that differs from it in numbers only: the variables of a model are inputs of the function, and so are the rates and
betas that `varying` finds.
"""

import functools
import hashlib
import itertools
import json
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule
from tensorflow.python.framework import ops
from tensorflow.python.framework.config import is_op_determinism_enabled

from mnist_exp.training.augmentation import attached_to
from mnist_exp.training.batches import BatchOrder
from mnist_exp.training.evaluate import logits_of
from mnist_exp.training.modes import WINDOW, Mode, traced_for
from mnist_exp.training.program_cache import ProgramCache
from mnist_exp.training.varying import SMOOTHING, Numbers, Place, blank, find_numbers, is_of_keras

Metrics = dict[str, float]
Tensors = tuple[tf.Tensor, ...]  # images and targets, perhaps weights of the images
MOST_KEPT = 64  # programs
# In the config of something that is not Keras's, nor this package's.
FOREIGN = r'"registered_name": "(?!keras|mnist_exp)|"class_name": "function"|"module": "(?!keras|builtins|mnist_exp)'


@dataclass(frozen=True)
class Data:
    """The images of a training as tensors, each with targets and, if wanted, weights.

    train: (n, ...). blocks: those of validation in blocks, (blocks, images, ...); rest: those beyond, (images, ...).
    """

    train: Tensors
    blocks: Tensors
    rest: Tensors

    @classmethod
    def of(cls, train: Sequence[np.ndarray], validation: Sequence[np.ndarray], block: int) -> Self:
        """block: the largest number of validation images that are in memory as numbers at a time."""
        images = len(validation[0])
        least = -(-images // block)
        blocks = next((count for count in range(least, 2 * least) if images % count == 0), least)
        whole = images // blocks * blocks
        cut = [tf.constant(part[:whole].reshape(blocks, -1, *part.shape[1:])) for part in validation]
        rest = [tf.constant(part[whole:]) for part in validation]
        return cls(tuple(map(tf.constant, train)), tuple(cut), tuple(rest))

    @property
    def signature(self) -> str:
        """Shapes and types."""
        return str([[(part.shape, part.dtype) for part in parts] for parts in (self.train, self.blocks, self.rest)])


@dataclass(frozen=True)
class Answers:
    """What a net answers for the validation images. logits: of its last softmax, if it has one. Both (n, classes)."""

    metrics: Metrics
    probabilities: np.ndarray
    logits: np.ndarray | None


class Program:
    """One traced function. `bind` makes it work on another model of the same kind."""

    def __init__(
        self, model: keras.Model, data: Data, order: BatchOrder, mode: Mode, identity: str, cache: ProgramCache | None
    ) -> None:
        """Traces the model, which must have all its variables, and compiles. Nothing of the model changes.

        identity: what no other program of this process has; in every process the same for the same program.
        """
        self.window = _window(order, mode)
        places = find_numbers(model)
        answers = len(_answers(model(data.blocks[0][0, :1], training=False)))
        self._numbers = Numbers([place.value for place in places])
        function = tf.function(partial(_run, model, mode, answers), jit_compile=mode == "xla", autograph=False)
        with self._numbers.in_place_of(places), _repeatable_names(identity):
            self._traced = function.get_concrete_function(*self._no_training(order, data))
        place_of = {id(variable.handle): place for place, variable in enumerate(_variables(model))}
        self._captured = list(self._traced.captured_inputs)
        self._places = [place_of.get(id(tensor)) for tensor in self._captured]
        ours = {id(variable.handle) for variable in self._numbers.variables.values()}
        # Constants of the first model, such as those of a layer that was adapted, may be others in the next.
        self.is_general = all(
            place is not None or id(tensor) in ours for place, tensor in zip(self._places, self._captured, strict=True)
        )
        with cache.compiling(identity) if cache else nullcontext():
            self._traced(*self._no_training(order, data))

    def fits(self, places: Sequence[Place]) -> bool:
        """Whether it computes the right thing for a model with these numbers."""
        return self._numbers.accepts([place.value for place in places])

    def bind(self, model: keras.Model) -> None:
        """Makes the next calls train and evaluate this model."""
        self._numbers.assign([place.value for place in find_numbers(model)])
        variables = _variables(model)
        self._traced.set_external_captures(
            [
                tensor if place is None else variables[place].handle
                for place, tensor in zip(self._places, self._captured, strict=True)
            ]
        )

    def train(self, order: BatchOrder, data: Data) -> Iterator[Metrics]:
        """Runs the epoch that `order` has begun. Yields the metrics after each window; the last has those of `val_`."""
        windows = list(order.windows(self.window))
        for number, (batches, steps) in enumerate(windows, 1):
            is_last = number == len(windows)
            blocks = len(data.blocks[0]) if is_last else 0
            metrics, checked, _ = self._traced(*_arguments(data, batches, steps, order.last, is_last, blocks))
            found = {name: float(value) for name, value in metrics.items()}
            yield found | {f"val_{name}": float(value) for name, value in checked.items() if is_last}

    def evaluate(self, order: BatchOrder, data: Data) -> Answers:
        """Returns what the model answers for the validation images. It trains nothing."""
        _, metrics, answers = self._traced(*self._no_training(order, data, len(data.blocks[0])))
        probabilities, *logits = (answer.numpy() for answer in answers)
        return Answers({name: float(value) for name, value in metrics.items()}, probabilities, *(logits or [None]))

    def _no_training(self, order: BatchOrder, data: Data, checked: int = 0) -> tuple[Any, ...]:
        batches = np.zeros((self.window, order.batch_size), np.int32)
        return _arguments(data, batches, 0, order.last, False, checked)


def count_windows(order: BatchOrder, mode: Mode) -> int:
    """Returns the number of calls in an epoch."""
    return -(-order.full // max(_window(order, mode), 1)) or 1


def _window(order: BatchOrder, mode: Mode) -> int:
    """The number of whole batches in a call."""
    return min(WINDOW[mode], order.full)


def _arguments(
    data: Data, batches: np.ndarray, steps: int, last: np.ndarray, takes_last: bool, checked: int
) -> tuple[Any, ...]:
    numbers = map(tf.constant, (batches, steps, last, takes_last, checked))
    return (*numbers, data.train, data.blocks, data.rest)


def _run(
    model: keras.Model, mode: Mode, answers: int, batches: tf.Tensor, steps: tf.Tensor, last: tf.Tensor,
    takes_last: tf.Tensor, checked: tf.Tensor, train: Tensors, blocks: Tensors, rest: Tensors,
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor], list[tf.Tensor]]:  # fmt: skip
    """What is traced. Loops and branches leave out what a call does not ask for, so that one trace serves every call.

    answers: how many arrays it answers with. batches: int32 (window, batch), of which the first `steps` are trained.
    last: the short batch, which it takes if `takes_last`. checked: the number of validation blocks to evaluate.
    """

    def train_on(chosen: tf.Tensor) -> None:
        model.train_step(tuple(tf.gather(part, chosen) for part in train))

    with traced_for(model, mode):
        if batches.shape[0]:
            _repeat(steps, lambda number: train_on(batches[number]))
        if last.shape[0]:
            _if(takes_last, lambda: train_on(last))  # in a loop XLA would round it otherwise than `fit` does
    metrics = model.get_metrics_result()
    _if(checked > 0, model.reset_metrics)
    found = _check(model, answers, checked, blocks)
    if rest[0].shape[0]:
        more = _check(model, answers, tf.minimum(checked, 1), tuple(part[None] for part in rest))
        found = [tf.concat(pair, 0) for pair in zip(found, more, strict=True)]
    return metrics, model.get_metrics_result(), found


def _if(condition: tf.Tensor, action: Callable[[], object]) -> None:
    def branch() -> tf.Tensor:
        action()
        return tf.constant(0)

    tf.cond(condition, branch, lambda: tf.constant(0))


def _repeat(times: tf.Tensor, action: Callable[[tf.Tensor], object]) -> None:
    def body(number: tf.Tensor) -> tf.Tensor:
        action(number)
        return number + 1

    tf.while_loop(lambda number: number < times, body, [0])


def _check(model: keras.Model, answers: int, count: tf.Tensor, blocks: Tensors) -> list[tf.Tensor]:
    """Tests the model on the first `count` blocks. Returns its answers for all, (n, classes), zeros for the others."""
    number_of_blocks, size = blocks[0].shape[:2]
    shape = (size, model.outputs[0].shape[-1])
    arrays = [tf.TensorArray(tf.float32, number_of_blocks, element_shape=shape) for _ in range(answers)]

    def body(number: tf.Tensor, *arrays: tf.TensorArray) -> tuple[Any, ...]:
        with _answers_heard(model) as heard:
            model.test_step(tuple(part[number] for part in blocks))
        found = _answers(heard[0] if heard else model(blocks[0][number], training=False))
        written = (array.write(number, tf.cast(one, tf.float32)) for array, one in zip(arrays, found, strict=True))
        return (number + 1, *written)

    _, *arrays = tf.while_loop(lambda number, *arrays: number < count, body, [0, *arrays])
    return [array.concat() for array in arrays]


def _answers(probabilities: Any) -> list[Any]:
    """The probabilities and, if a softmax made them, its input."""
    logits = logits_of(probabilities)
    return [probabilities] if logits is None else [probabilities, logits]


@contextmanager
def _answers_heard(model: keras.Model) -> Iterator[list[Any]]:
    """Yields a list with the answers from which `test_step` computes metrics, so that they are computed once."""
    heard: list[Any] = []
    plain = model.compute_metrics

    def compute_metrics(x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        heard.append(y_pred)
        return plain(x, y, y_pred, sample_weight)

    model.compute_metrics = compute_metrics
    try:
        yield heard
    finally:
        del model.compute_metrics


def _variables(model: keras.Model) -> list[tf.Variable]:
    """All variables of a training, in an order that every model of the same kind shares."""
    augmentation = attached_to(model)
    outside = augmentation.variables if augmentation else []
    found = (*model.variables, *model.optimizer.variables, *model.metrics_variables, *outside)
    return [variable._value for variable in found]


@contextmanager
def _repeatable_names(identity: str) -> Iterator[None]:
    """Names what is traced by its identity, not by a counter of all traces of the process.

    XLA's cache on disk knows a program by its names, too. In one process, no two programs may have the same identity.
    """
    first = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:5]) << 20  # room for a million names
    plain, names = ops.uid, itertools.count(max(first, 1 << 40))
    ops.uid = functools.partial(next, names)
    try:
        yield
    finally:
        ops.uid = plain


_kept: OrderedDict[str, list[Program]] = OrderedDict()  # by the kind of model
_traced: Counter[str] = Counter()  # how often a program of this kind was traced in this process


def get_program(
    model: keras.Model, data: Data, order: BatchOrder, mode: Mode, cache: ProgramCache | None = None
) -> Program:
    """Returns a program for this compiled model and these data: a kept one if there is one, else a new one."""
    _create_variables(model, data)
    places = find_numbers(model)
    shapes = data.signature, order.batch_size, order.full, order.short
    kind = json.dumps([_describe(model, places), mode, shapes, is_op_determinism_enabled()], default=repr)
    program = next((kept for kept in _kept.get(kind, []) if kept.fits(places)), None)
    if program is None:
        program = _compile(kind, model, data, order, mode, cache)
        if program.is_general and _is_of_keras_alone(model):
            _kept.setdefault(kind, []).append(program)
    if kind in _kept:
        _kept.move_to_end(kind)
        if len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
    program.bind(model)
    return program


def _compile(
    kind: str, model: keras.Model, data: Data, order: BatchOrder, mode: Mode, cache: ProgramCache | None
) -> Program:
    """Traces and compiles. If TensorFlow refuses what the cache holds for this program, it is compiled without."""
    _traced[kind] += 1
    try:
        return Program(model, data, order, mode, f"{_traced[kind]} {kind}", cache)
    except tf.errors.OpError:
        if not cache:
            raise
    _traced[kind] += 1
    return Program(model, data, order, mode, f"{_traced[kind]} {kind}", None)


def _create_variables(model: keras.Model, data: Data) -> None:
    """Creates what a model creates at its first batch: no variable can be created in a trace."""
    model.optimizer.build(model.trainable_variables)
    images, targets, *_ = (part[:1] for part in data.train)
    answers = model(images, training=False)
    model.compute_loss(images, targets, answers)  # looks at every argument of the loss when it is called first
    model.compute_metrics(images, targets, answers)
    model.reset_metrics()


def _describe(model: keras.Model, places: Sequence[Place]) -> list[Any]:
    """Returns all that a compiled model is made of, without its numbers that may vary."""
    optimizer, loss, metrics = model.optimizer, model.loss, _metrics(model)
    with blank(places):
        parts = [model.get_config(), optimizer.get_config(), loss if isinstance(loss, str) else loss.get_config()]
        parts += [metric if isinstance(metric, str) else metric.get_config() for metric in metrics]
        parts += augmentation.get_config() if (augmentation := attached_to(model)) else []
    if not isinstance(optimizer._learning_rate, LearningRateSchedule):
        del parts[1]["learning_rate"]  # a variable
    if any(place.name == SMOOTHING for place in places):
        del parts[2][SMOOTHING]  # a copy
    return [[type(one).__qualname__ for one in (model, optimizer, loss, *metrics)], *parts]


def _metrics(model: keras.Model) -> list[Any]:
    """The metrics with which a model was compiled, some of them as names, then those of weighted images."""
    compiled = model._compile_metrics
    return [*(compiled._user_metrics or []), "weighted:", *(compiled._user_weighted_metrics or [])]


def _is_of_keras_alone(model: keras.Model) -> bool:
    """Whether the config of a model describes all of it. Code of a user's own may do what no config says."""
    metrics = [metric for metric in _metrics(model) if not isinstance(metric, str)]
    augmentation = attached_to(model)
    layers = [*model._flatten_layers(), *(augmentation.all_layers if augmentation else [])]
    made = [model, model.optimizer, model.loss, *layers, *metrics]
    config = json.dumps(_describe(model, find_numbers(model)), default=repr)
    return (
        all(map(is_of_keras, made))
        and not any(isinstance(layer, keras.layers.Lambda) for layer in made)
        and not re.search(FOREIGN, config)
    )
