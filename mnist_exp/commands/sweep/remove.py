"""python -m mnist_exp sweep rm: removes a sweep with its trials."""

from functools import partial

import click

from mnist_exp.commands.options import json_option, with_store
from mnist_exp.commands.removal import SHAPE, carry_out, list_removals, removal_options
from mnist_exp.tracking.find import SWEEPS, find_run
from mnist_exp.tracking.protection import Protection
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
    sweep, protection = find_run(store, name, among=SWEEPS), Protection.of(store)
    ids = dict.fromkeys(run.id for run in protection.belonging(sweep))
    find = partial(list_removals, ids=ids, resumable=resumable)
    carry_out(protection, find, dry_run=dry_run, yes=yes, as_json=as_json)
