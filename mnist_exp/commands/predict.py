"""python -m mnist_exp predict photo.png folder/: what a stored model predicts for images; - reads one from stdin."""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
import numpy as np
from PIL import Image

from mnist_exp.commands.options import json_option, print_found, run_option, with_store, write_errors
from mnist_exp.data.dataset import Preparation
from mnist_exp.data.folder import SUFFIXES
from mnist_exp.data.images import read_image
from mnist_exp.data.preparation import Tile, prepare
from mnist_exp.errors import DataError, Problem
from mnist_exp.log import hide_library_output
from mnist_exp.tracking.find import find_finished
from mnist_exp.tracking.registry import load_model, read_metadata
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun

if TYPE_CHECKING:
    import keras

TOGETHER = 256  # images in memory at a time
UNSURE = 0.6  # a prediction with a lower probability is unsure
SHOWN, THUMBNAIL = 24, (300, 300)  # the number of images in the figure of --show, and the most pixels of one
SKIPPED = 5  # the number of files that a line names
NAMES = 34  # characters of a path in a line of 80


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for one image: its class and the next one, with probabilities.

    tile: the pixels it saw. doubt: in words, if the image is not of the kind that the model was trained on.
    """

    label: str
    probability: float
    second: str
    second_probability: float
    tile: np.ndarray
    doubt: str = ""

    @property
    def unsure(self) -> bool:
        """Whether the other classes together are nearly as probable."""
        return self.probability < UNSURE


Answer = Prediction | str  # the error of a file that cannot be used


@dataclass(frozen=True)
class Predictor:
    """A model with the metadata that it needs to be used. run: where it was trained."""

    model: "keras.Model"
    run: StoredRun
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    preparation: Preparation

    @classmethod
    def load(cls, store: Store, wanted: str, experiment: str | None = None) -> Self:
        """Loads the model of a run, which `find_finished` finds. Raises TrackingError if the run has no model."""
        return cls.load_run(store, find_finished(store, wanted, experiment).run)

    @classmethod
    def load_run(cls, store: Store, run: StoredRun) -> Self:
        """Loads the model of a run. Raises TrackingError if the run has no model."""
        model, metadata = _load(store.uri, run.model_run_id)
        names, size = tuple(metadata["class_names"]), metadata["input"]
        shape = size["height"], size["width"], size["channels"]
        return cls(model, run, names, shape, metadata.get("preparation", "resize"))

    def tile(self, image: Image.Image) -> Tile:
        """Returns what the model sees of an RGBA image. Raises DataError if nothing is drawn."""
        return prepare(image, self.preparation, self.shape)

    def predict(self, tiles: Sequence[Tile]) -> list[Prediction]:
        """Returns a prediction for each tile, in order."""
        if not tiles:
            return []
        pixels = np.stack([tile.pixels for tile in tiles])
        probabilities = self.model.predict(pixels, batch_size=256, verbose=0).astype(np.float64)
        return [self._prediction(*pair) for pair in zip(probabilities, tiles, strict=True)]

    def probabilities(self, tile: Tile) -> dict[str, float]:
        """Returns the probability of each class by name. Takes one image at a time, for interactive use."""
        values = np.asarray(self.model(tile.pixels[None], training=False), np.float64)[0]
        return dict(zip(self.class_names, map(float, values), strict=True))

    def _prediction(self, probabilities: np.ndarray, tile: Tile) -> Prediction:
        best, second = probabilities.argsort()[::-1][:2]
        first, then = ((self.class_names[place], float(probabilities[place])) for place in (best, second))
        return Prediction(*first, *then, tile.pixels, tile.doubt)


@lru_cache(maxsize=2)
def _load(uri: str, run_id: str) -> "tuple[keras.Model, dict[str, Any]]":
    """Returns model and metadata of a run, which never change."""
    return load_model(uri, run_id), read_metadata(uri, run_id)


def predict_files(predictor: Predictor, names: Iterator[str]) -> Iterator[tuple[str, Image.Image | None, Answer]]:
    """Yields name, image and prediction of each file. If a file cannot be used, the error replaces the prediction."""
    while some := list(islice(names, TOGETHER)):
        images, tiles, errors = [], [], {}
        for place, name in enumerate(some):
            image = None
            try:
                image = _read(name)
                tiles.append(predictor.tile(image))
            except DataError as error:
                errors[place] = f"{name}: {error}" if image else str(error)
            else:
                image.thumbnail(THUMBNAIL)
                images.append(image)
        with hide_library_output():
            predictions = iter(zip(images, predictor.predict(tiles), strict=True))
        for place, name in enumerate(some):
            yield (name, None, errors[place]) if place in errors else (name, *next(predictions))


def _read(name: str) -> Image.Image:
    if name == "-":
        return read_image(io.BytesIO(sys.stdin.buffer.read()), "standard input")
    if Path(name).is_dir():
        raise DataError(Problem(name, f"must contain images ({', '.join(sorted(SUFFIXES))})"))
    if not Path(name).exists():
        raise DataError(Problem(name, "does not exist", remedy=f"the current folder is {Path.cwd()}"))
    return read_image(Path(name), name)


@click.command(help=__doc__, epilog="Exits with 1 if one of the images could not be read.")
@click.argument("paths", nargs=-1, required=True)
@run_option
@click.option("--experiment", help="The experiment in which best is searched; by default that of the newest run.")
@click.option("--show", type=click.Path(dir_okay=False, path_type=Path), help="Draw originals beside tiles.")
@json_option(
    "an object per line: path, label, probability, second, second_probability, doubt, run; or path, error, run."
)
@with_store
def command(
    paths: Sequence[str], run: str, experiment: str | None, show: Path | None, as_json: bool, store: Store
) -> None:
    """Prints a line for each image."""
    with hide_library_output():
        found = find_finished(store, run, experiment)
    print_found(found, as_json)
    with hide_library_output():
        predictor = Predictor.load_run(store, found.run)
    skipped = _list_skipped(paths)
    if skipped:
        click.echo(_describe_skipped(skipped), err=True)
    shown: list[tuple[Image.Image, Prediction]] = []
    predicted, failed = 0, False
    for name, image, prediction in predict_files(predictor, _files(paths)):
        if isinstance(prediction, str):
            failed = True
            click.echo(f"error: {prediction}", err=True)
            if as_json:
                click.echo(json.dumps({"path": name, "error": prediction, "run": found.run.id}))
            continue
        click.echo(_json_line(name, prediction, found.run) if as_json else _line(name, prediction))
        predicted += 1
        if image and len(shown) < SHOWN:
            shown.append((image, prediction))
    if show and shown:
        _draw(show, shown)
        if predicted > len(shown):
            click.echo(f"{show} shows the first {len(shown)} of {predicted} images", err=True)
    raise SystemExit(failed)


def _files(paths: Sequence[str]) -> Iterator[str]:
    """Yields the files, those of folders included."""
    for path in paths:
        if path != "-" and Path(path).is_dir():
            inside = sorted(str(file) for file in Path(path).rglob("[!.]*") if file.suffix.lower() in SUFFIXES)
            yield from inside or [path]  # an empty folder becomes an error
        else:
            yield path


def _list_skipped(paths: Sequence[str]) -> list[Path]:
    """Returns the files in folders that `_files` leaves out because of their suffix."""
    folders = [Path(path) for path in paths if path != "-" and Path(path).is_dir()]
    found = [file for folder in folders for file in sorted(folder.rglob("[!.]*")) if file.is_file()]
    return [file for file in found if file.suffix.lower() not in SUFFIXES]


def _describe_skipped(files: Sequence[Path]) -> str:
    names = ", ".join(file.name for file in files[:SKIPPED]) + ", ..." * (len(files) > SKIPPED)
    noun = "file" if len(files) == 1 else "files"
    return f"skipped {len(files)} {noun} of another kind than {', '.join(sorted(SUFFIXES))}: {names}"


def _draw(path: Path, shown: Sequence[tuple[Image.Image, Prediction]]) -> None:
    from mnist_exp.evaluation.figures import originals_and_tiles
    from mnist_exp.evaluation.plots import DPI

    pictures = [
        (_flatten(image), prediction.tile, f"{prediction.label} ({prediction.probability:.1%})", prediction.unsure)
        for image, prediction in shown
    ]
    with write_errors("--show", path):
        originals_and_tiles(pictures).savefig(path, dpi=DPI)


def _flatten(image: Image.Image) -> np.ndarray:
    """Returns the image on grey, on which transparent drawings are visible, black and white ones."""
    paper = Image.new("RGBA", image.size, (215, 215, 215, 255))
    return np.asarray(Image.alpha_composite(paper, image).convert("RGB"))


def _line(name: str, prediction: Prediction) -> str:
    shown = name if len(name) <= NAMES else f"…{name[1 - NAMES :]}"
    words = f"{shown:<{NAMES}}  {prediction.label}  {prediction.probability:6.1%}"
    note = prediction.doubt or "unsure" * prediction.unsure
    return f"{words}, then {prediction.second} {prediction.second_probability:.1%}{f'  {note}' if note else ''}"


def _json_line(name: str, prediction: Prediction, run: StoredRun) -> str:
    values = {
        "path": name,
        "label": prediction.label,
        "probability": round(prediction.probability, 6),
        "second": prediction.second,
        "second_probability": round(prediction.second_probability, 6),
        "doubt": prediction.doubt or None,
        "run": run.id,
    }
    return json.dumps(values)
