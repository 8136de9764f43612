"""python -m mnist_exp predict photo.png folder/: what a stored model says of images; - reads one from stdin."""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from PIL import Image

from mnist_exp.commands.options import with_tracking
from mnist_exp.data.folder import SUFFIXES
from mnist_exp.data.images import read_image
from mnist_exp.errors import DataError
from mnist_exp.terminal import chatter_in_log
from mnist_exp.tracking import Tracking, existing_store

if TYPE_CHECKING:
    from mnist_exp.predicting import Answer, Predictor

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
    from mnist_exp.predicting import Predictor

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
    from mnist_exp.figures import DPI, originals_and_tiles

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
