"""python -m mnist_exp store: checks, moves, copies and cleans a store, and delivers what it has not taken of a run."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from mnist_exp.commands.options import json_option, print_json, with_store, with_tracking
from mnist_exp.commands.removal import SHAPE, carry_out, removal_options, shrink
from mnist_exp.config.objective import Objective
from mnist_exp.config.schema import Tracking
from mnist_exp.log import hide_library_output
from mnist_exp.tracking.protection import Protection, Removal, find_deleted, find_orphans, models_below
from mnist_exp.tracking.sqlite import DATABASE, Missing, check_store, move_store, uri_of
from mnist_exp.tracking.store import Store, connect_existing, long_retries, open_store
from mnist_exp.tracking.stored_run import StoredRun
from mnist_exp.tracking.sweep_run import SweepRun

FOLDER = click.Path(path_type=Path)
DAY = 86_400  # seconds


@click.group(help=__doc__)
def command() -> None:
    """Its sub-commands."""


@command.command()
@click.argument("folder", type=FOLDER, default=Path("mlruns"))
@json_option("an array with an object per missing folder: kind, name, place.")
def check(folder: Path, as_json: bool) -> None:
    """Lists the runs and models whose files are missing; exits with 1 if there are any."""
    missing = check_store(folder)
    if as_json:
        print_json([asdict(one) for one in missing])
    else:
        _print_missing(missing)
        click.echo(f"{len(missing)} missing" if missing else "every finished run and model has its files")
    raise SystemExit(bool(missing))


@command.command()
@click.argument("old", type=FOLDER)
@click.argument("new", type=FOLDER)
def move(old: Path, new: Path) -> None:
    """Repairs the store in the folder NEW, which was moved there from OLD; the database is backed up first."""
    changed, backup = move_store(old, new)
    click.echo(f"{changed} places now point to {new.absolute()}; the database before is {backup.name}")
    missing = check_store(new)
    _print_missing(missing)
    raise SystemExit(bool(missing))


def _print_missing(missing: Sequence[Missing]) -> None:
    for one in missing:
        click.echo(f"{one.kind} {one.name}: {one.place} is missing")


@command.command()
@click.argument("folder", type=FOLDER, default=Path("mlruns"))
@click.option("--to", "uri", required=True, help="The other store, such as http://tracker:5000.")
@json_option("an object: runs, before, metrics, files, models, versions, left.")
def copy(folder: Path, uri: str, as_json: bool) -> None:
    """Copies runs, metrics, artifacts and registered models to another store, such as the server of a team.

    Copy again to bring the other store up to date, also after a crash and during a sweep. What arrived is compared
    with what was sent. Exits with 1 if something had to be left as the other store has it.
    """
    from mnist_exp.tracking.copy import copy_store

    here = Tracking(uri=uri_of(folder.resolve() / DATABASE), folder=str(folder))
    source = connect_existing(here)
    with long_retries(), hide_library_output():
        done = copy_store(source, open_store(uri, folder), click.echo if not as_json else lambda label: None)
    if as_json:
        print_json(asdict(done))
    else:
        for sentence in done.left:
            click.echo(sentence)
        click.echo(
            f"{done.runs} runs copied, {done.before} were copied before; {done.metrics} metrics, {done.files} files, "
            f"{done.models} models, {done.versions} registered versions arrived as sent"
        )
    raise SystemExit(bool(done.left))


@command.command()
@click.argument("runs", nargs=-1)
@json_option("an array with an object per run: name, id, status, delivered, refused, waiting, folder.")
@with_tracking
def deliver(runs: Sequence[str], as_json: bool, settings: Tracking) -> None:
    """Delivers what the store has not taken of RUNS, by default of all runs of this machine that have ended.

    Exits with 1 if the store still refuses something.
    """
    from mnist_exp.tracking.outbox import deliver_runs

    with hide_library_output():
        done = deliver_runs(connect_existing(settings), Path(settings.folder).resolve(), runs)
    if as_json:
        print_json([asdict(one) for one in done])
    elif not done:
        click.echo("nothing to deliver")
    for one in done if not as_json else ():
        calls = "1 call" if one.delivered == 1 else f"{one.delivered} calls"
        click.echo(f"{one.name} ({one.id[:8]}): {calls} delivered; the run is {one.status}")
        for refused in one.refused:
            click.echo(f"    still refused: {refused}; kept in {one.folder}")
        if one.waiting:
            click.echo(f"    the store is away; the rest is kept in {one.folder}")
    raise SystemExit(not all(one.is_whole for one in done))


@command.command()
@click.option("--keep-models", type=click.IntRange(1), metavar="K", help="Of finished sweeps, keep the best K models.")
@click.option("--older-than", type=float, default=0.0, metavar="DAYS", help="--keep-models: only of sweeps this old.")
@removal_options
@json_option(SHAPE)
@with_store
def gc(
    keep_models: int | None, older_than: float, dry_run: bool, yes: bool, as_json: bool, store: Store
) -> None:  # fmt: skip
    """Removes what was deleted in the UI, files without a run and, with --keep-models, models of old sweeps.

    The bytes are named first. What is registered, runs, can be resumed or is needed by another run stays.
    """

    def find(protection: Protection) -> list[Removal]:
        removals = [*find_deleted(protection), *find_orphans(store)]
        if keep_models is not None:
            for sweep in protection.finished_sweeps():
                if (time.time() - (sweep.ended or sweep.started)) >= older_than * DAY:
                    removals += models_below(protection, sweep, _best_runs(store, sweep, keep_models))
        return list(dict.fromkeys(removals))  # a model may be that of a deleted run, too

    carry_out(Protection.of(store), find, dry_run=dry_run, yes=yes, as_json=as_json)
    if not dry_run and not as_json:
        shrink(store)


def _best_runs(store: Store, sweep: StoredRun, count: int) -> set[str]:
    """The runs that hold the models of the best trials of a sweep, and of those whose models saw the test set.

    With a trial stay its trainings with new seeds.
    """
    from mnist_exp.sweep.winner import rank

    record = SweepRun.find(store, sweep.id)
    settings, trials = record.record["settings"], record.trials()
    opened = {opening.model_run for opening in record.openings()}
    best = rank(trials, Objective(settings["objective"], settings["direction"]))[:count]
    kept = [*best, *(trial for trial in trials if trial.model_run_id in opened)]
    numbers = {trial.number for trial in kept}
    confirming = {one.run_id for one in record.confirmations() if one.trial in numbers}
    return opened | confirming | {trial.model_run_id for trial in kept}
