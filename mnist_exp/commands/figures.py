"""python -m mnist_exp figures RUN: draws the figures of a run, such as a trial, and keeps them with it in the store."""

import click

from mnist_exp.commands.options import RUN_IS, allow, json_option, print_found, print_json, whitelist_option, with_store
from mnist_exp.config.run_config import RunConfig
from mnist_exp.log import hide_library_output
from mnist_exp.terminal import command_to_open
from mnist_exp.tracking.find import find_finished
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, read_config


def draw_figures(store: Store, run: StoredRun) -> list[str]:
    """Draws all figures of a run and adds them to its artifacts. Returns their paths there.

    Raises DataError if its data are not on this machine, TrackingError if it has no model or no predictions.
    """
    from mnist_exp.data.load import load_splits
    from mnist_exp.tracking.run_figures import draw_run
    from mnist_exp.training.augmentation import show_changes

    config = RunConfig(read_config(store, run), run.choices)
    splits = load_splits(config)
    return draw_run(store, run, splits, augmented=show_changes(config, splits))


@click.command(help=__doc__, epilog=RUN_IS)
@click.argument("run", metavar="RUN")
@whitelist_option
@json_option("an object: figures (their paths among the artifacts of the run), run.")
@with_store
def command(run: str, allowed: tuple[str, ...], as_json: bool, store: Store) -> None:
    """Prints where the figures are."""
    with hide_library_output():
        found = find_finished(store, run)
    print_found(found, as_json)
    with hide_library_output():
        drawn = draw_figures(allow(store, allowed), found.run)
    if as_json:
        print_json({"figures": drawn, "run": found.to_record()})
        return
    click.echo(f"{len(drawn)} figures are among the artifacts of {found.run.label} now")
    click.echo(f"open: {command_to_open(store.uri)}")
