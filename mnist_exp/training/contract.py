"""Checks a net before its first epoch: what it is, what it answers for a few images, and that its file can be loaded.

A net of Keras's own layers is saved and loaded in this process, which takes 30 to 150 ms. One with layers of the user's
own is also loaded in a new process, because this one has them imported already. That takes 7 s, most of it TensorFlow's
import, and happens once in a process for the same code (2 cores).
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from mnist_exp.config.own_code import find_own_objects, import_own_objects, load_keras, places_of, source_files
from mnist_exp.errors import ConfigError, Problem, UserError

if TYPE_CHECKING:
    import keras

IMAGES = 8  # in the batch that is tried
SUM = 1e-2  # how far the probabilities of an image may be from a sum of 1: a softmax in bfloat16 rounds them
CLOSE = 1e-3  # the largest difference of a probability after loading: the new process has no GPU
WRAP = "inputs = keras.Input(image_shape); return keras.Model(inputs, net(inputs))"
_loaded: set[str] = set()  # code that a new process has loaded
_answers: WeakKeyDictionary[Any, np.ndarray] = WeakKeyDictionary()  # of frozen nets, for some images


def check_model(model: Any, images: np.ndarray, classes: int, folder: Path) -> None:
    """Checks what the function of `model._target_` returned. Nothing of the model and of its random states changes.

    Of a net with a frozen part made of Keras's own layers, it is the other part that is saved and loaded.

    images: uint8 (n, height, width, channels), the first of the training. folder: for temporary files. Raises
    ConfigError with the first rule that is not met; an error in the net's own code arrives as it was raised.
    """
    few = images[:IMAGES]
    check_structure(model, few.shape[1:], classes)
    from mnist_exp.training.features import FrozenNet
    from mnist_exp.training.varying import is_of_keras

    if (frozen := FrozenNet.of(model)) and all(map(is_of_keras, frozen.features._flatten_layers())):
        if frozen.features not in _answers:  # trials share this net
            _answers[frozen.features] = np.asarray(frozen.features(few, training=False))
        model, few = frozen.head, _answers[frozen.features]  # Keras can save and load the rest
    with _same_random_numbers():
        answers = np.asarray(model(few, training=False), np.float64)
        check_answers(answers)
        check_file(model, few, answers, folder)


def check_structure(model: Any, image_shape: tuple[int, ...], classes: int) -> None:
    """Raises ConfigError unless this is a built model with one input for images and one output for the classes."""
    import keras

    if not isinstance(model, keras.Model):
        rule = f"must be a keras.Model, but its function returned {'None' if model is None else type(model).__name__}"
        raise ConfigError(Problem("model", rule, remedy="end the function with: return keras.Model(inputs, outputs)"))
    if not model.built:
        rule = f"must be built, but the {type(model).__name__} that its function returned does not know its input"
        raise ConfigError(Problem("model", rule, remedy=f"begin it with keras.Input(image_shape), or: {WRAP}"))
    if not getattr(model, "inputs", None):
        rule = f"must be a functional or sequential model, but is a {type(model).__name__}"
        raise ConfigError(Problem("model", rule, remedy=f"wrap it: {WRAP}"))
    for kind, tensors, wanted, remedy in (
        ("input", model.inputs, image_shape, "give keras.Input(image_shape)"),
        ("output", model.outputs, (classes,), 'end with keras.layers.Dense(classes, "softmax")'),
    ):
        if len(tensors) != 1:
            raise ConfigError(Problem("model", f"must have one {kind}", len(tensors), remedy))
        shape = tuple(tensors[0].shape)
        fits = len(shape) == len(wanted) + 1 and all(a in (None, b) for a, b in zip(shape[1:], wanted, strict=True))
        if not fits:
            raise ConfigError(Problem("model", f"must have an {kind} of shape {(None, *wanted)}", shape, remedy))


def check_answers(answers: np.ndarray) -> None:
    """Raises ConfigError unless these are probabilities. answers: (n, classes)."""
    if not np.isfinite(answers).all():
        found = answers[~np.isfinite(answers)][0]
        remedy = "look for a division by zero, a logarithm of 0 or an overflow in the net"
        raise ConfigError(Problem("model", "must answer with finite numbers before its training", float(found), remedy))
    sums = answers.sum(axis=1)
    if answers.min() < 0 or np.abs(sums - 1).max() > SUM:
        rule = "must answer with probabilities: not negative, with a sum of 1 for each image"
        far = answers[np.abs(sums - 1).argmax()]
        found = f"numbers from {far.min():.3g} to {far.max():.3g} with a sum of {far.sum():.3g}"
        remedy = 'end the net with a softmax: keras.layers.Dense(classes, "softmax")'
        raise ConfigError(Problem("model", f"{rule}, but an image got {found}", remedy=remedy))


def check_file(model: "keras.Model", images: np.ndarray, answers: np.ndarray, folder: Path) -> None:
    """Raises ConfigError if the model cannot be saved, or if its file does not answer as the model does."""
    import keras

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Lambda) and getattr(layer.function, "__name__", "") == "<lambda>":
            rule = f"must not have a Lambda layer with a lambda ({layer.name}), because Keras does not load it again"
            remedy = "use functions of keras.ops on the tensors, or write a layer of your own"
            raise ConfigError(Problem("model", rule, remedy=remedy))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        file = Path(name, "model.keras")
        with _file_errors("save"):
            objects = find_own_objects(model)
            model.save(file)
        with _file_errors("load"):
            again = load_keras(file, objects)
        _compare(np.asarray(again(images, training=False)), answers, "its file")
        if objects:
            places = places_of(objects)
            code = _digest(places)
            if code not in _loaded:
                _load_in_new_process(file, places, images, answers)
                _loaded.add(code)


def _load_in_new_process(file: Path, places: Mapping[str, str], images: np.ndarray, answers: np.ndarray) -> None:
    np.savez(file.with_suffix(".npz"), images=images)
    file.with_suffix(".json").write_text(json.dumps(dict(places)))
    command = [sys.executable, "-m", "mnist_exp.training.contract", str(file)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}  # the GPU's memory belongs to this process
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        rule = f"must load in a new process, so that predict and demo can use it, but there: {last}"
        remedy = "define its layers in a module below the current folder, at its top level"
        raise ConfigError(Problem("model", rule, remedy=remedy))
    with np.load(file.with_suffix(".out.npz")) as found:
        _compare(found["answers"], answers, "a new process")


def main(file: Path) -> int:
    """Loads the file as `predict` would and keeps what it answers. Returns the exit status of the new process."""
    try:
        objects = import_own_objects(json.loads(file.with_suffix(".json").read_text()))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    with np.load(file.with_suffix(".npz")) as given:
        answers = np.asarray(load_keras(file, objects)(given["images"], training=False))
    np.savez(file.with_suffix(".out.npz"), answers=answers)
    return 0


def _compare(found: np.ndarray, answers: np.ndarray, where: str) -> None:
    largest = float(np.abs(found - answers).max())
    if not largest <= CLOSE:
        rule = f"must answer the same when it is loaded in {where}, probabilities within {CLOSE:g}"
        remedy = "keep every weight in add_weight() or in a layer, and every argument in get_config()"
        raise ConfigError(Problem("model", rule, largest, remedy))


@contextmanager
def _file_errors(verb: str) -> Iterator[None]:
    """Turns what Keras raises into a ConfigError. It wraps what a layer's own methods raise, too."""
    try:
        yield
    except Exception as error:
        text = str(error).strip().partition("\n")[0][:300]
        rule = f"must be a net that Keras can save and load, but to {verb} it fails: {type(error).__name__}: {text}"
        remedy = "give each layer of your own get_config() with every argument of its __init__"
        raise ConfigError(Problem("model", rule, remedy=remedy)) from error


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Restores the random states of Python and NumPy after the block: loading a model draws from them."""
    before = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _digest(places: Mapping[str, str]) -> str:
    """A hash of the names of own objects and of the code that they are made of."""
    text = json.dumps(places, sort_keys=True).encode()
    return hashlib.sha256(text + b"".join(source.read_bytes() for source, _ in source_files(places))).hexdigest()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
