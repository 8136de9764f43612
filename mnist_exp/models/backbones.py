"""The nets of keras.applications without their last layers, with their preprocessing and their weights."""

import difflib
import random
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_exp.errors import ConfigError, Problem

if TYPE_CHECKING:
    import keras

DOWNLOADED = "imagenet"  # the weights that Keras downloads
MOST_USES = 50  # of one object: Keras keeps what it was connected with
_shared: dict[tuple[Any, ...], tuple[Any, int]] = {}  # the last net, and how often it was used


def build_features(image_shape: tuple[int, int, int], backbone: str, weights: str | None, size: int | None) -> Any:
    """Returns a frozen net from raw pixels, 0-255, to a vector of features for each image.

    It is the same object for the same arguments, since nobody trains it: building it takes longer than training a head.

    backbone: the name of a net of keras.applications. weights: `imagenet`, which Keras downloads, or a file of weights
    of this net without its top; None draws them at random. size: to which images are resized first; None: as they are.
    Raises ConfigError for a net, a size or weights that cannot be used.
    """
    import keras

    file = Path(weights).expanduser() if weights not in (None, DOWNLOADED) else None
    state = file.stat() if file and file.is_file() else None
    if weights is None:  # each draws its own
        return _build_features(image_shape, backbone, weights, size)
    policy = keras.config.dtype_policy().name
    made_of = tuple(image_shape), backbone, weights, size, policy, state and state.st_mtime_ns
    if made_of not in _shared or _shared[made_of][1] == MOST_USES:
        _shared.clear()
        before = random.getstate()  # of which Keras draws seeds: those of the head must not depend on who builds this
        _shared[made_of] = _build_features(image_shape, backbone, weights, size), 0
        random.setstate(before)
    net, uses = _shared[made_of]
    _shared[made_of] = net, uses + 1
    return net


def give_up_sharing() -> None:
    """Must be called before a net that `build_features` has returned is changed: the next one builds its own."""
    _shared.clear()


def _build_features(image_shape: tuple[int, int, int], backbone: str, weights: str | None, size: int | None) -> Any:
    import keras
    from keras import layers

    height, width, channels = image_shape
    inputs = keras.Input(image_shape, name="image")
    x = layers.Concatenate(name="to_colour")([inputs] * 3) if channels == 1 else inputs
    if size:
        x = layers.Resizing(size, size, name="resizing")(x)
        height = width = size
    build = _find(backbone)
    net = _build(build, backbone, weights, (height, width, 3))
    net.trainable = False
    x = _preprocess(x, build)
    features = keras.Model(inputs, net(x, training=False), name="features")
    features.trainable = False
    features.is_backbone = True  # it answers in a training as after it, which a net of the user's own may not do
    return features


def _find(backbone: str) -> Any:
    """The function of keras.applications that builds a net."""
    import keras

    known = [name for name, value in vars(keras.applications).items() if callable(value) and name[0].isupper()]
    if backbone not in known:
        by_lower = {name.lower(): name for name in known}
        close = difflib.get_close_matches(backbone.lower(), by_lower, n=1)
        remedy = f"did you mean {by_lower[close[0]]}?" if close else f"such as {', '.join(sorted(known)[:6])}"
        raise ConfigError(Problem("model.backbone", "must be a net of keras.applications", backbone, remedy))
    return getattr(keras.applications, backbone)


def _build(build: Any, backbone: str, weights: str | None, shape: tuple[int, int, int]) -> "keras.Model":
    """Builds a net and gives it its weights."""
    named = DOWNLOADED if weights == DOWNLOADED else None
    try:
        net = build(include_top=False, weights=named, input_shape=shape, pooling="avg")
    except ValueError as error:
        rule = f"must suit {backbone} ({_first_line(error)})"
        raise ConfigError(Problem("model.size", rule, shape[:2], "give a larger model.size, such as 96")) from error
    except Exception as error:  # whatever Keras raises without a network
        rule = f"cannot be downloaded ({_first_line(error)})"
        remedy = "give model.weights=FILE, which another machine has downloaded, or model.weights=null for random ones"
        raise ConfigError(Problem("model.weights", rule, weights, remedy)) from error
    if weights not in (None, DOWNLOADED):
        _load(net, backbone, Path(str(weights)).expanduser())
    return net


def _load(net: "keras.Model", backbone: str, path: Path) -> None:
    if not path.is_file():
        rule = f"must be imagenet, null or a file (seen from {Path.cwd()})"
        raise ConfigError(Problem("model.weights", rule, str(path), "check the name of the file"))
    try:
        with warnings.catch_warnings(action="ignore"):  # of each layer that does not fit, before the error
            net.load_weights(path)
    except Exception as error:  # Keras, h5py and zipfile raise many kinds for a file that is damaged or another net's
        rule = f"must hold the weights of {backbone} without its top ({_first_line(error)})"
        remedy = "save them with: net.save_weights('FILE.weights.h5')"
        raise ConfigError(Problem("model.weights", rule, str(path), remedy)) from error


def _preprocess(x: Any, build: Any) -> Any:
    """Applies what the net expects to be done to pixels: a sum of channels with weights, and an offset.

    keras.applications has a function for it beside each net, which is no layer. Its weights are found by asking it.
    """
    import importlib

    from keras import layers

    function = importlib.import_module(build.__module__).preprocess_input
    offset = np.asarray(function(np.zeros((1, 1, 1, 3), np.float32))).reshape(3)
    units = 255 * np.eye(3, dtype=np.float32).reshape(3, 1, 1, 3)
    matrix = (np.asarray(function(units.copy())).reshape(3, 3) - offset) / 255  # from a channel to each
    if np.allclose(matrix, np.eye(3)) and np.allclose(offset, 0):
        return x
    mixing = layers.Conv2D(3, 1, name="preprocessing", dtype="float32", trainable=False)
    mixed = mixing(x)
    mixing.set_weights([matrix.reshape(1, 1, 3, 3).astype(np.float32), offset.astype(np.float32)])
    return mixed


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:150] or type(error).__name__
