"""python -m mnist_exp sweep rm: removes a sweep with its trials."""

import click

from mnist_exp.commands.options import json_option, with_store
from mnist_exp.commands.removal import SHAPE, carry_out, check_removable, removal_options
from mnist_exp.tracking.delete import Protection, removals_of
from mnist_exp.tracking.find import SWEEPS, find_run
from mnist_exp.tracking.store import Store


@click.command("rm")
@click.argument("name")
@click.option("--resumable", is_flag=True, help="Also a sweep that did not come to its end and could be resumed.")
@removal_options
@json_option(SHAPE)
@with_store
def rm_command(name: str, resumable: bool, dry_run: bool, yes: bool, as_json: bool, store: Store) -> None:
    """Removes a sweep with all of its trials, their files and models; the bytes are named first.

    It stays if it runs, if one of its models is registered, or if a run outside of it needs one of its own.
    """
    protection = Protection.of(store)
    runs = protection.belonging(protection.runs[find_run(store, name, among=SWEEPS).id])
    check_removable(protection, runs, resumable)
    carry_out(store, removals_of(store, runs), dry_run=dry_run, yes=yes, as_json=as_json)
