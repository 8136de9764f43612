"""python -m mnist_exp store: checks a local store, repairs one whose folder moved, copies one to a server."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from mnist_exp.commands.options import json_option, print_json
from mnist_exp.config.schema import Tracking
from mnist_exp.log import hide_library_output
from mnist_exp.tracking.sqlite import DATABASE, Missing, check_store, move_store, uri_of
from mnist_exp.tracking.store import connect_existing, long_retries, open_store

FOLDER = click.Path(path_type=Path)


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
