"""Answers of a stored model about images from anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from mnist_exp.data.parts import Preparation
from mnist_exp.errors import TrackingError
from mnist_exp.preparation import prepare

if TYPE_CHECKING:
    import keras

    from mnist_exp.tracking.store import Store

UNSURE = 0.6  # the probability below which an answer is said to be unsure


@dataclass(frozen=True)
class Answer:
    """What a model says of one image: its class and the next best, with probabilities; tile: the pixels it saw."""

    label: str
    probability: float
    second: str
    second_probability: float
    tile: np.ndarray

    @property
    def unsure(self) -> bool:
        """Whether other classes are together nearly as probable."""
        return self.probability < UNSURE


@dataclass(frozen=True)
class Predictor:
    """A model with what it must be used with; name: of its run."""

    model: "keras.Model"
    name: str
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    preparation: Preparation

    @classmethod
    def of(cls, store: "Store", wanted: str, experiment: str | None = None) -> Self:
        """The model of a run; wanted, experiment: as find_run has them. Raises TrackingError where it kept none."""
        from mnist_exp.tracking.lookup import find_run, model_run
        from mnist_exp.tracking.store import answering

        run = find_run(store, wanted, experiment)
        name = f"{run.info.run_name} ({run.info.run_id[:8]})"
        if run.info.status != "FINISHED":
            raise TrackingError(f"a run keeps its model when it finishes, but {name} is {run.info.status}")
        with answering(store.uri):
            model, known = _loaded(store.uri, model_run(run))
        size = known["input"]
        return cls(
            model,
            name,
            tuple(known["class_names"]),
            (size["height"], size["width"], size["channels"]),
            known.get("preparation", "resize"),
        )

    def tile(self, image: Image.Image) -> np.ndarray:
        """The pixels the model sees of an RGBA image: uint8 (height, width, channels).

        Raises DataError where nothing is drawn.
        """
        return prepare(image, self.preparation, self.shape)

    def answers(self, tiles: Sequence[np.ndarray]) -> list[Answer]:
        """One for each tile, in order."""
        if not tiles:
            return []
        probabilities = self.model.predict(np.stack(tiles), batch_size=256, verbose=0).astype(np.float64)
        return [self._answer(*pair) for pair in zip(probabilities, tiles, strict=True)]

    def probabilities(self, tile: np.ndarray) -> dict[str, float]:
        """Of each class by its name, in order; one image at a time, for who waits for it."""
        found = np.asarray(self.model(tile[None], training=False), np.float64)[0]
        return dict(zip(self.class_names, map(float, found), strict=True))

    def _answer(self, probabilities: np.ndarray, tile: np.ndarray) -> Answer:
        best, second = probabilities.argsort()[::-1][:2]
        names = self.class_names
        return Answer(names[best], float(probabilities[best]), names[second], float(probabilities[second]), tile)


@lru_cache(maxsize=2)
def _loaded(uri: str, run_id: str) -> "tuple[keras.Model, dict[str, Any]]":
    """Model and metadata of a run, which never change."""
    from mlflow.models import Model

    from mnist_exp.tracking import load_model

    return load_model(uri, run_id), Model.load(f"runs:/{run_id}/model").metadata or {}
