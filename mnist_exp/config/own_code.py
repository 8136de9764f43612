"""Layers and functions of the user's own in a model: which they are, and how another process finds them.

Keras writes their names into a model's file, not their code. So their modules are recorded with the model, and imported
again before it is loaded.
"""

import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from mnist_exp.config.recorded import find_own_file, is_own_module
from mnist_exp.errors import Problem, TrackingError

if TYPE_CHECKING:
    import keras

LIBRARIES = ("keras", "tensorflow", "numpy", "builtins")


def find_own_objects(model: "keras.Model") -> dict[str, Any]:
    """Returns every class and function that a model's file names and Keras does not have, by its name in the file."""
    import keras

    functions = set(_function_names(keras.saving.serialize_keras_object(model)))
    found = {}
    for holder in (model, *model._flatten_layers()):
        for value in (holder, *vars(holder).values()):
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


def load_keras(path: Path, objects: Mapping[str, Any]) -> "keras.Model":
    """Loads a `.keras` file that names these objects. Keras refuses Lambda layers and objects that it does not know."""
    import keras

    with keras.saving.custom_object_scope(dict(objects)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")  # a stored one has not begun
        return keras.models.load_model(path, safe_mode=True)


def source_files(places: Mapping[str, str]) -> Iterator[tuple[Path, Path]]:
    """Yields the files of the user's code that is loaded: where each is, and where it must be to be imported again."""
    tops = {place.partition(".")[0].partition(":")[0] for place in places.values()}
    for name, module in sorted(sys.modules.items()) if tops else ():
        file, top = getattr(module, "__file__", None), name.partition(".")[0]
        if file and file.endswith(".py") and (top in tops or is_own_module(name)):
            place = Path(*name.split("."))
            is_package = Path(file).name == "__init__.py"
            yield Path(file), place / "__init__.py" if is_package else place.with_suffix(".py")
