"""python -m mnist_exp predict photo.png folder/: what a stored model says of images; - reads one from stdin."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from mnist_exp.data.dataset import Preparation
from mnist_exp.data.preparation import prepare
from mnist_exp.errors import TrackingError

if TYPE_CHECKING:
    import keras

    from mnist_exp.tracking.store import Store


import io
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist_exp.commands.options import with_tracking
from mnist_exp.config.schema import Tracking
from mnist_exp.data.folder import SUFFIXES
from mnist_exp.data.images import read_image
from mnist_exp.errors import DataError
from mnist_exp.log import chatter_in_log
from mnist_exp.tracking.store import existing_store

TOGETHER = 256  # images in memory at a time
SHOWN, THUMBNAIL = 24, (300, 300)  # images that --show has room for, and the most pixels of one
NAMES = 34  # letters of a path in a line of 80


@click.command(help=__doc__)
@click.argument("paths", nargs=-1, required=True)
@click.option("--run", default="best", show_default=True, help="An id, name, latest, best or models:/NAME@ALIAS.")
@click.option("--experiment", help="Where best is looked for; else where the newest run is.")
@click.option("--show", type=click.Path(dir_okay=False, path_type=Path), help="A figure: originals beside tiles.")
@click.option("--json", "as_json", is_flag=True, help="One object a line: path, label, probability.")
@with_tracking
def command(
    paths: Sequence[str],
    run: str,
    experiment: str | None,
    show: Path | None,
    as_json: bool,
    tracking: Tracking,
) -> None:
    """Prints a line for each image; exits with 1 where one could not be read."""

    with chatter_in_log():
        predictor = Predictor.of(existing_store(tracking), run, experiment)
    if not as_json:
        click.echo(f"model: {predictor.name}")
    shown: list[tuple[Image.Image, Answer]] = []
    failed = False
    for name, image, answer in _answered(predictor, _files(paths)):
        if isinstance(answer, str):
            failed = True
            click.echo(f"error: {answer}", err=True)
            continue
        click.echo(_as_json(name, answer) if as_json else _as_line(name, answer))
        if image and len(shown) < SHOWN:
            shown.append((image, answer))
    if show and shown:
        _show(show, shown)
    if failed:
        raise SystemExit(1)


def _files(paths: Sequence[str]) -> Iterator[str]:
    """The files meant, folders opened."""
    for path in paths:
        if path != "-" and Path(path).is_dir():
            inside = sorted(str(file) for file in Path(path).rglob("[!.]*") if file.suffix.lower() in SUFFIXES)
            yield from inside or [path]  # an empty folder is said to be no image
        else:
            yield path


def _answered(predictor: "Predictor", names: Iterator[str]) -> "Iterator[tuple[str, Image.Image | None, Answer | str]]":
    """Name, image and answer of each file in turn; in place of an answer what is wrong with it."""
    while some := list(islice(names, TOGETHER)):
        images, tiles, wrong = [], [], {}
        for place, name in enumerate(some):
            try:
                image = _read(name)
                tiles.append(predictor.tile(image))
                image.thumbnail(THUMBNAIL)
                images.append(image)
            except DataError as error:
                wrong[place] = str(error) if name in str(error) else f"{name}: {error}"
        with chatter_in_log():
            good = iter(zip(images, predictor.answers(tiles), strict=True))
        for place, name in enumerate(some):
            yield (name, None, wrong[place]) if place in wrong else (name, *next(good))


def _read(name: str) -> Image.Image:
    if name == "-":
        return read_image(io.BytesIO(sys.stdin.buffer.read()), "standard input")
    if Path(name).is_dir():
        raise DataError(f"{name}: a folder needs images in it, but has none ({', '.join(sorted(SUFFIXES))})")
    if not Path(name).exists():
        raise DataError(f"{name}: there is no such file or folder, seen from {Path.cwd()}")
    return read_image(Path(name), name)


def _show(path: Path, shown: "Sequence[tuple[Image.Image, Answer]]") -> None:
    from mnist_exp.evaluation.figures import originals_and_tiles
    from mnist_exp.evaluation.plots import DPI

    pictures = [
        (_flat(image), answer.tile, f"{answer.label} ({answer.probability:.1%})", answer.unsure)
        for image, answer in shown
    ]
    try:
        originals_and_tiles(pictures).savefig(path, dpi=DPI)
    except (OSError, ValueError) as error:  # no such folder, or no format of that name
        raise DataError(f"--show {path} cannot be written: {error}; name a .png in a folder that exists") from error


def _flat(image: Image.Image) -> np.ndarray:
    """On grey, so that transparent drawings show, black and white ones."""
    paper = Image.new("RGBA", image.size, (215, 215, 215, 255))
    return np.asarray(Image.alpha_composite(paper, image).convert("RGB"))


def _as_line(name: str, answer: "Answer") -> str:
    shown = name if len(name) <= NAMES else f"…{name[1 - NAMES :]}"
    words = f"{shown:<{NAMES}}  {answer.label}  {answer.probability:6.1%}"
    return f"{words}, then {answer.second} {answer.second_probability:.1%}{'  unsure' * answer.unsure}"


def _as_json(name: str, answer: "Answer") -> str:
    return json.dumps({"path": name, "label": answer.label, "probability": round(answer.probability, 6)})


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
        from mnist_exp.tracking.find import find_run, model_run
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

    from mnist_exp.tracking.registry import load_model

    return load_model(uri, run_id), Model.load(f"runs:/{run_id}/model").metadata or {}
