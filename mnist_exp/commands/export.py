"""python -m mnist_exp export RUN --format h5: writes a run's model in another format, and compares what it answers."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist_exp.commands.options import RUN_IS, allow, json_option, print_found, print_json, whitelist_option, with_store
from mnist_exp.config.run_config import RunConfig
from mnist_exp.errors import ConfigError, DataError, Problem
from mnist_exp.log import hide_library_output
from mnist_exp.tracking.find import find_finished
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, read_config

if TYPE_CHECKING:
    import numpy as np

    from mnist_exp.training.model_files import Export, Format

IMAGES = 1000
NAMES: "dict[Format, str]" = {"keras": "mnist.keras", "h5": "mnist.h5", "savedmodel": "saved_model"}


def export_run(store: Store, run: StoredRun, kind: "Format", path: Path) -> "tuple[Export, str]":
    """Writes the model of a run, and returns how it compares with the stored one, and on which images.

    Raises ConfigError if the path cannot be used, TrackingError if the run has no model.
    """
    from mnist_exp.commands.predict import Predictor
    from mnist_exp.training.model_files import export

    if path.exists():
        raise ConfigError(Problem(str(path), "already exists", remedy="choose another path with --to"))
    if not path.parent.is_dir():
        remedy = "create it, or choose another path with --to"
        raise ConfigError(Problem(str(path.parent), "is not a folder", remedy=remedy))
    predictor = Predictor.load_run(store, run)
    config = RunConfig(read_config(store, run), run.choices)
    images, source = _images(config, predictor.shape)
    return export(predictor.model, kind, path, images), source


def _images(config: RunConfig, shape: tuple[int, int, int]) -> "tuple[np.ndarray, str]":
    """Returns validation images of the run, or noise if its data are not on this machine."""
    import numpy as np

    from mnist_exp.data.load import load_splits

    try:
        return load_splits(config).validation.images[:IMAGES], "validation images"
    except DataError:
        noise = np.random.default_rng(0).integers(0, 256, (IMAGES, *shape), dtype=np.uint8)
        return noise, "images of noise, because its data are not on this machine"


@click.command(help=__doc__, epilog=RUN_IS)
@click.argument("run")
@click.option(
    "--format",
    "kind",
    type=click.Choice(list(NAMES)),
    default="h5",
    show_default=True,
    help="Keras's file of today, its classic HDF5, or TensorFlow's SavedModel.",
)
@click.option(
    "--to", type=click.Path(path_type=Path), help="By default mnist.keras, mnist.h5 or the folder saved_model."
)
@whitelist_option
@json_option("an object: path, largest (the largest difference of a probability), images, source, run.")
@with_store
def command(run: str, kind: "Format", to: Path | None, allowed: tuple[str, ...], as_json: bool, store: Store) -> None:
    """Prints the path, and how far its probabilities are from those of the stored model."""
    with hide_library_output():
        found = find_finished(store, run)
    print_found(found, as_json)
    with hide_library_output():
        done, source = export_run(allow(store, allowed), found.run, kind, to or Path(NAMES[kind]))
    if as_json:
        print_json({**asdict(done), "source": source, "run": found.to_record()})
        return
    click.echo(
        f"{done.path}: read again, the same answers on {done.images:,} {source}, "
        f"largest difference of a probability {done.largest:.2g}"
    )
