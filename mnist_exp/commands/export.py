"""python -m mnist_exp export RUN --format h5: a run's model in another format, read again and compared."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist_exp.commands.options import with_tracking
from mnist_exp.config.schema import Tracking
from mnist_exp.errors import ConfigError, DataError
from mnist_exp.log import chatter_in_log
from mnist_exp.tracking.store import existing_store

if TYPE_CHECKING:
    import numpy as np

    from mnist_exp.training.model_files import Format

IMAGES = 1000
NAMES: "dict[Format, str]" = {"h5": "mnist.h5", "savedmodel": "saved_model"}


@click.command(help=__doc__)
@click.argument("run")
@click.option("--format", "kind", type=click.Choice(list(NAMES)), default="h5", show_default=True)
@click.option("--to", type=click.Path(path_type=Path), help="The file or folder to write; mnist.h5 or saved_model.")
@with_tracking
def command(run: str, kind: "Format", to: Path | None, tracking: Tracking) -> None:
    """Says where it is and how far its probabilities are from the model's."""
    from mnist_exp.commands.predict import Predictor
    from mnist_exp.commands.reproduce import recorded
    from mnist_exp.training.model_files import export

    to = to or Path(NAMES[kind])
    if to.exists():
        raise ConfigError(f"{to} is there already; move it away, or name another with --to")
    if not to.parent.is_dir():
        raise ConfigError(f"{to.parent} is no folder; create it, or name another file with --to")
    with chatter_in_log():
        store = existing_store(tracking)
        predictor = Predictor.of(store, run)
        images, source = _images(recorded(store, run).config.dataset, predictor.shape)
        done = export(predictor.model, kind, to, images)
    click.echo(
        f"{done.path}: read again, the same answers on {done.images:,} {source}, "
        f"largest difference of a probability {done.largest:.2g}"
    )


def _images(dataset: object, shape: tuple[int, int, int]) -> "tuple[np.ndarray, str]":
    """Validation images of the run, or noise where its data are not here."""
    import numpy as np
    from omegaconf import DictConfig

    from mnist_exp.data.load import load_splits

    assert isinstance(dataset, DictConfig)
    try:
        return load_splits(dataset).validation.images[:IMAGES], "validation images"
    except DataError:
        noise = np.random.default_rng(0).integers(0, 256, (IMAGES, *shape), dtype=np.uint8)
        return noise, "images of noise, since its data are not here"
