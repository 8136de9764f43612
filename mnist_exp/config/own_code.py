"""Layers and functions of the user's own in a model: which they are, and how another process finds them.

Keras writes their names into a model's file, not their code. So their modules are recorded with the model, and imported
again before it is loaded.
"""

import ast
import hashlib
import importlib
import json
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from mnist_exp.config.recorded import find_own_file, is_own_module, targets_of
from mnist_exp.errors import Problem, TrackingError

if TYPE_CHECKING:
    import keras

LIBRARIES = ("keras", "tensorflow", "numpy", "builtins", "mnist_exp")


def find_own_objects(model: "keras.Model") -> dict[str, Any]:
    """Returns every class and function that a model's file names and Keras does not have, by its name in the file."""
    import keras

    of_training = keras.Loss, keras.Metric, keras.Optimizer  # not needed for answers, see `in_stored_form`
    functions = set(_function_names(keras.saving.serialize_keras_object(model)))
    found = {}
    for holder in (model, *model._flatten_layers()):
        for value in (value for value in (holder, *vars(holder).values()) if not isinstance(value, of_training)):
            own = value if isinstance(value, FunctionType) else type(value)
            name = keras.saving.get_registered_name(own)
            named = name in functions if own is value else hasattr(own, "get_config")
            if named and own.__module__.partition(".")[0] not in LIBRARIES:
                found[name] = own
    return found


def places_of(objects: Mapping[str, Any]) -> dict[str, str]:
    """Returns where objects are defined, such as `my_layers:Scale`, by name. It is recorded with the model."""
    return {name: f"{own.__module__}:{own.__qualname__}" for name, own in objects.items()}


def _function_names(config: Any) -> Iterator[str]:
    """Yields the names of the functions in a serialized model, which Keras writes without their module."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "function":
            yield str(config["config"])
        config = list(config.values())
    if isinstance(config, list | tuple):
        for part in config:
            yield from _function_names(part)


def import_own_objects(places: Mapping[str, str]) -> dict[str, Any]:
    """Imports what `places_of` returned. Raises TrackingError if a module is not in the current folder's code.

    Every model of a store is loaded through this function, so it decides which code a model may run.
    """
    found: dict[str, Any] = {}
    for name, place in places.items():
        module, _, path = place.partition(":")
        own = importlib.import_module(module) if find_own_file(module) else None
        if own is None or not is_own_module(module):
            rule = f"needs {path} of the module {module}, which is not in the current folder's code"
            remedy = f"start the command in the folder that holds {module.partition('.')[0]}"
            raise TrackingError(Problem("the model", rule, remedy=remedy))
        try:
            found[name] = reduce(getattr, path.split("."), own)
        except AttributeError as error:
            remedy = "define it at the top level of the module, as it was when the model was trained"
            raise TrackingError(Problem("the model", f"needs {path}, which {module} lacks", remedy=remedy)) from error
    return found


def frozen_part(model: "keras.Model") -> "keras.Model | None":
    """Returns the net within a model that is not trained; None if there is none."""
    return next((layer for layer in model.layers if hasattr(layer, "layers") and not layer.trainable), None)


def _reusing(known: "keras.Model") -> type:
    """Returns a class of nets for Keras to load: in the place of one with the config of a known net stands this net."""
    import keras

    class Known(keras.layers.Layer):
        """Answers as the known net, but has no weights, so that Keras reads none for it."""

        built = True

        def compute_output_spec(self, images: Any, training: Any = None, mask: Any = None) -> "keras.KerasTensor":
            return keras.KerasTensor((images.shape[0], *known.output_shape[1:]), known.outputs[0].dtype)

        def call(self, images: Any, training: Any = None, mask: Any = None) -> Any:
            return known(images, training=False)

    Known.__name__ = type(known).__name__  # Keras counts classes by their names to find the weights of each layer

    def normalize(config: Any) -> str:
        return re.sub(r', "shared_object_id": \d+', "", json.dumps(config, sort_keys=True, default=repr))

    wanted = normalize(keras.saving.serialize_keras_object(known)["config"])

    class Functional(keras.Model):
        @classmethod
        def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
            if config.get("name") == known.name and normalize(config) == wanted:
                return Known(name=known.name, trainable=False)
            return keras.Model.from_config(config, custom_objects)

    return Functional


def digest_own_code(config: Any) -> str | None:
    """Returns a SHA-256 of the user's code that a config names, and of what that imports; None if it names none.

    Only code of the current folder counts. It is read, not run.
    """
    files = own_files(targets_of(config))
    if not files:
        return None
    sha = hashlib.sha256()
    for name in sorted(files):
        sha.update(f"{name} {hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode())
    return sha.hexdigest()


def own_files(names: Iterable[str]) -> dict[str, Path]:
    """Returns the files of the current folder's code among these dotted names, and of what they import, by module."""
    found: dict[str, Path] = {}
    waiting = [name for dotted in names for name in _prefixes(dotted)]
    while waiting:
        name = waiting.pop()
        if name not in found and (file := find_own_file(name)):
            found[name] = file
            waiting += [prefix for dotted in _imports(name, file) for prefix in _prefixes(dotted)]
    return found


def _prefixes(dotted: str) -> list[str]:
    """`a`, `a.b` and `a.b.c` of `a.b.c`: each may be a module."""
    parts = dotted.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)] if all(map(str.isidentifier, parts)) else []


def _imports(module: str, file: Path) -> Iterator[str]:
    """Yields the dotted names that a file imports. None if it is no Python, which its import will say."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            within = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*within, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names if alias.name != "*")
            yield base


def load_keras(path: Path, objects: Mapping[str, Any], known: "keras.Model | None" = None) -> "keras.Model":
    """Loads a `.keras` file that names these objects. Keras refuses Lambda layers and objects that it does not know.

    known: a frozen net that takes the place of one with the same config in the file, whose weights are not read.
    Building a large net and reading it take longer than the training of a head.
    """
    import keras

    scope = {**objects, "Functional": _reusing(known)} if known else dict(objects)
    with keras.saving.custom_object_scope(scope), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")  # a stored one has not begun
        return keras.models.load_model(path, safe_mode=True)


@contextmanager
def in_stored_form(model: "keras.Model") -> Iterator[None]:
    """Gives a model the form in which it is saved, for a while: with an optimizer that has not begun.

    The state of an optimizer is two thirds of the file.
    A model with a loss, metric, optimizer or schedule that is not Keras's is stored as if it had never been compiled.
    Its answers need none of them, and only where that code is could it be loaded.
    """
    trained, compiled = getattr(model, "optimizer", None), model.compiled
    if trained is None:
        yield
        return
    if _is_compiled_by_keras_alone(model):
        model.optimizer = type(trained).from_config(trained.get_config())
    else:
        model.optimizer, model.compiled = None, False
    try:
        yield
    finally:
        model.optimizer, model.compiled = trained, compiled


def _is_compiled_by_keras_alone(model: "keras.Model") -> bool:
    config = json.dumps(model.get_compile_config(), default=repr)
    return not re.search(r'"module": "(?!keras|builtins)|"class_name": "function"', config)


def source_files(places: Mapping[str, str]) -> Iterator[tuple[Path, Path]]:
    """Yields the files of the user's code that is loaded: where each is, and where it must be to be imported again."""
    tops = {place.partition(".")[0].partition(":")[0] for place in places.values()}
    for name, module in sorted(sys.modules.items()) if tops else ():
        file, top = getattr(module, "__file__", None), name.partition(".")[0]
        if file and file.endswith(".py") and (top in tops or is_own_module(name)):
            place = Path(*name.split("."))
            is_package = Path(file).name == "__init__.py"
            yield Path(file), place / "__init__.py" if is_package else place.with_suffix(".py")
