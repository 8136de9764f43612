"""python -m mnist_exp runs: removes runs for good, with their files and models."""

from functools import partial

import click

from mnist_exp.commands.options import json_option, with_store
from mnist_exp.commands.removal import SHAPE, carry_out, list_removals, removal_options
from mnist_exp.errors import Problem, TrackingError
from mnist_exp.tracking import tags
from mnist_exp.tracking.find import RUNS_AND_SWEEPS, find_run
from mnist_exp.tracking.protection import Protection
from mnist_exp.tracking.store import Store


@click.group(help=__doc__)
def command() -> None:
    """Its sub-commands."""


@command.command("rm")
@click.argument("runs", nargs=-1, required=True)
@click.option("--resumable", is_flag=True, help="Also runs that could be resumed.")
@removal_options
@json_option(SHAPE)
@with_store
def rm(runs: tuple[str, ...], resumable: bool, dry_run: bool, yes: bool, as_json: bool, store: Store) -> None:
    """Removes RUNS, named by their ids or names; the bytes are named first.

    What runs, is registered, or is needed by another run stays, and so does a trial: its sweep counts it.
    """
    chosen = [find_run(store, name, among=RUNS_AND_SWEEPS) for name in dict.fromkeys(runs)]
    for run in chosen:
        kind = run.tags.get(tags.KIND)
        if kind == "sweep":
            raise TrackingError(Problem(run.label, "is a sweep", remedy=f"python -m mnist_exp sweep rm {run.id[:8]}"))
        if kind == "trial":
            rule = "is a trial, which its sweep counts"
            remedy = "remove the sweep with sweep rm, or models of trials with store gc --keep-models 5"
            raise TrackingError(Problem(run.label, rule, remedy=remedy))
    protection = Protection.of(store)
    ids = dict.fromkeys(one.id for run in chosen for one in protection.belonging(run))
    find = partial(list_removals, ids=ids, resumable=resumable)
    carry_out(protection, find, dry_run=dry_run, yes=yes, as_json=as_json)
