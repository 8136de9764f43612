"""Random changes of the training images, by layers that stand before a model and are no part of it."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mnist_exp.config.components import TARGET, is_function, make
from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import General
from mnist_exp.data.splits import Splits, spread
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.training.schedules import describe_function
from mnist_exp.training.varying import is_of_keras

SHOWN, STEPS = 6, 8  # images whose changes a figure shows, and how often each
LAYERS = "keras.layers."
# Digits and letters: they keep their meaning under small changes of place, angle and size, but not mirrored.
DIGITS = (
    {TARGET: f"{LAYERS}RandomTranslation", "height_factor": 0.1, "width_factor": 0.1, "fill_mode": "constant",
     "interpolation": "nearest"},
    {TARGET: f"{LAYERS}RandomRotation", "factor": 0.03, "fill_mode": "constant"},
    {TARGET: f"{LAYERS}RandomZoom", "height_factor": 0.1, "width_factor": 0.1, "fill_mode": "constant"},
)  # fmt: skip
# Photos: also mirrored, and in another light.
PHOTOS = (
    {TARGET: f"{LAYERS}RandomFlip", "mode": "horizontal"},
    {TARGET: f"{LAYERS}RandomTranslation", "height_factor": 0.1, "width_factor": 0.1, "fill_mode": "reflect"},
    {TARGET: f"{LAYERS}RandomZoom", "height_factor": 0.15, "width_factor": 0.15, "fill_mode": "reflect"},
    {TARGET: f"{LAYERS}RandomBrightness", "factor": 0.15},
    {TARGET: f"{LAYERS}RandomContrast", "factor": 0.15},
)
MIXING = (keras.layers.MixUp, keras.layers.CutMix)  # they mix labels, too, which a layer of images cannot
PRESETS: Mapping[str, Sequence[Mapping[str, Any]]] = {"none": (), "digits": DIGITS, "photos": PHOTOS}


class StepSeeds:
    """Makes a generator of Keras's draw by the number of the training step, not by its own count of draws.

    So the draws are the same in every mode of training, and when a training is resumed. seed: of this generator.
    iterations: the variable of the optimizer that counts the steps.
    """

    def __init__(self, generator: keras.random.SeedGenerator, seed: int, iterations: keras.Variable) -> None:
        generator.state.assign([seed, 0])
        self.state, self.iterations, self.drawn = generator.state, iterations, 0
        generator.next = self.next

    def next(self, ordered: bool = True) -> Any:
        """Returns the seed of the next draw of this step: it is drawn once for all steps of what is traced."""
        self.drawn += 1
        return ops.stack([self.state[0] + self.drawn, ops.cast(self.iterations, self.state.dtype)])


class FunctionLayer(keras.layers.Layer):
    """A plain function of images."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def call(self, images: Any) -> Any:
        return self.function(images)

    def get_config(self) -> dict[str, Any]:
        return {"function": describe_function(self.function)}


class Augmentation:
    """Layers through which the images of each training step go. seed: of the run."""

    def __init__(self, layers: Sequence[keras.layers.Layer], seed: int) -> None:
        self.layers, self.seed = list(layers), seed
        self._seeds: list[StepSeeds] = []

    def __call__(self, images: Any) -> Any:
        """Returns the images (n, height, width, channels), 0-255, as a net would see them in training, float32."""
        shape, x = images.shape[1:], ops.cast(images, "float32")
        for seeds in self._seeds:
            seeds.drawn = 0
        for layer in self.layers:
            x = layer(x, training=True)
        if tuple(x.shape[1:]) != tuple(shape):
            rule = f"must keep the shape of the images, {tuple(shape)}"
            raise ConfigError(Problem("augmentation", rule, tuple(x.shape[1:]), "leave out layers that crop or resize"))
        return ops.clip(x, 0.0, 255.0)

    @property
    def variables(self) -> list[keras.Variable]:
        """Those of its layers, in an order that all of the same kind share."""
        return [variable for layer in self.layers for variable in layer.variables]

    @property
    def all_layers(self) -> list[keras.layers.Layer]:
        """Its layers, with those inside others."""
        return [inner for layer in self.layers for inner in layer._flatten_layers()]

    def attach(self, model: keras.Model, optimizer: keras.Optimizer) -> None:
        """Makes every training step of a model with this optimizer see changed images. `detach` ends that."""
        self.follow(optimizer.iterations)
        plain = model.train_step

        def train_step(data: tuple[Any, ...]) -> Any:
            images, *rest = data
            return plain((self(images), *rest))

        train_step.augmentation = self  # type: ignore[attr-defined]
        model.train_step = train_step

    def follow(self, iterations: keras.Variable) -> None:
        """Draws random numbers by this counter of steps."""
        self._seeds = [
            StepSeeds(generator, int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) >> 8, iterations)
            for place, layer in enumerate(self.all_layers)
            for name, generator in _generators(f"{self.seed} {place}", layer)
        ]

    def find_unrepeatable(self, images: np.ndarray) -> list[str]:
        """Returns the names of the layers that do not change images the same when a step is repeated.

        They draw random numbers that do not follow the step, or remember something. images: uint8, as of a data set.
        """
        if all(map(is_of_keras, self.all_layers)):
            return []  # theirs follow the step
        self.follow(keras.Variable(0, dtype="int64", trainable=False))
        found, x = [], ops.cast(images, "float32")
        for layer in self.layers:
            answers = []
            for _ in range(2):
                for seeds in self._seeds:
                    seeds.drawn = 0
                answers.append(layer(x, training=True))
            first, second = map(ops.convert_to_numpy, answers)
            if not np.array_equal(first, second, equal_nan=True):
                found.append(getattr(getattr(layer, "function", layer), "__name__", type(layer).__name__))
            x = answers[0]
        return found

    def samples(self, images: np.ndarray, steps: int) -> np.ndarray:
        """Returns the images as a net sees them in the first steps: uint8 (steps, n, height, width, channels)."""
        counter = keras.Variable(0, dtype="int64", trainable=False)
        self.follow(counter)
        seen = []
        for step in range(steps):
            counter.assign(step)
            seen.append(np.rint(ops.convert_to_numpy(self(images))).astype(np.uint8))
        return np.stack(seen)

    def get_config(self) -> list[Any]:
        """The classes and configs of the layers. Their seeds are left out, since they follow from that of the run."""
        return [[type(layer).__qualname__, _without_seeds(layer.get_config())] for layer in self.layers]


def _generators(prefix: str, layer: keras.layers.Layer) -> Iterator[tuple[str, keras.random.SeedGenerator]]:
    """Yields the generators of a layer, those of the layers inside it excepted, each with a name of its own."""
    named = {id(one): name for name, one in vars(layer).items() if isinstance(one, keras.random.SeedGenerator)}
    for place, generator in enumerate(layer._seed_generators):  # those in its lists and dicts, too
        yield f"{prefix} {named.get(id(generator), place)}", generator


def _without_seeds(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {key: _without_seeds(value) for key, value in config.items() if key not in ("seed", "name")}
    return [_without_seeds(part) for part in config] if isinstance(config, list | tuple) else config


def attached_to(model: keras.Model) -> Augmentation | None:
    """Returns what changes the images of this model's training steps."""
    return getattr(model.train_step, "augmentation", None)


def detach(model: keras.Model) -> None:
    """Lets the training steps of a model see images as they are again."""
    if attached_to(model):
        del model.train_step


def show_changes(config: RunConfig, splits: Splits) -> np.ndarray | None:
    """Returns some training images as the net of a run sees them in its first steps.

    uint8 (STEPS, SHOWN, height, width, channels); None without augmentation, and for a trial of a sweep, which has no
    test set and draws no such figure.
    """
    augmentation = build_augmentation(config) if splits.test else None
    shown = spread(SHOWN, len(splits.train))
    return augmentation.samples(splits.train.images[shown], STEPS) if augmentation else None


def build_augmentation(config: RunConfig) -> Augmentation | None:
    """Builds the layers of a preset or of entries of the config; None for none of them.

    Raises ConfigError for an entry that makes no layer, or one that mixes images.
    """
    chosen = config.settings(General).augmentation
    entries: Sequence[Mapping[str, Any]] = PRESETS[chosen] if isinstance(chosen, str) else chosen
    layers = []
    for place, entry in enumerate(entries):
        made = make("augmentation", entry)
        if not isinstance(made, keras.layers.Layer):
            if not is_function(made):
                rule = "must make a layer of Keras's, or be a function of images"
                raise ConfigError(Problem(f"augmentation[{place}]", rule, type(made).__name__))
            made = FunctionLayer(made)
        if mixing := next((one for one in made._flatten_layers() if isinstance(one, MIXING)), None):
            rule = "must change each image on its own, because the labels are not mixed with the images"
            remedy = "use a layer that keeps the class of each image, such as keras.layers.RandomErasing"
            raise ConfigError(Problem(f"augmentation[{place}]", rule, type(mixing).__name__, remedy))
        layers.append(made)
    return Augmentation(layers, config.seed) if layers else None
