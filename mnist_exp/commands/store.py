"""python -m mnist_exp store: checks a local store, repairs one whose folder moved, copies one to a server."""

from pathlib import Path

import click

from mnist_exp.config.schema import Tracking
from mnist_exp.tracking.sqlite import DATABASE, check_store, move_store, uri_of
from mnist_exp.tracking.store import existing_store


@click.group(help=__doc__)
def command() -> None:
    """Its sub-commands."""


@command.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("mlruns"))
def check(folder: Path) -> None:
    """Names the runs and models whose files are missing; exits with 1 where there are any."""
    missing = check_store(folder)
    for one in missing:
        click.echo(f"{one.table} {one.name}: {one.place} is missing")
    click.echo(f"{len(missing)} missing" if missing else "every finished run and model has its files")
    raise SystemExit(bool(missing))


@command.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def move(old: Path, new: Path) -> None:
    """Repairs the store in the folder NEW, which was moved there from OLD; the database is backed up first."""
    changed, backup = move_store(old, new)
    click.echo(f"{changed} places now point to {new.absolute()}; the database before is {backup.name}")
    missing = check_store(new)
    for one in missing:
        click.echo(f"{one.table} {one.name}: {one.place} is missing")
    raise SystemExit(bool(missing))


@command.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("mlruns"))
@click.option("--to", "uri", required=True, help="The other store, such as http://tracker:5000.")
def copy(folder: Path, uri: str) -> None:
    """Carries runs, metrics, artifacts and registered models to another store, such as the team's server.

    What arrived is compared with what was sent; copied again after a crash, it goes on.
    """
    from mnist_exp.tracking.copy import copy_store
    from mnist_exp.tracking.store import open_store, patiently

    here = Tracking(enabled=True, uri=uri_of(folder.resolve() / DATABASE), experiment="", folder=str(folder))
    source = existing_store(here)
    with patiently():
        done = copy_store(source, open_store(uri, folder), click.echo)
    click.echo(
        f"{done.runs} runs copied, {done.before} were there; {done.metrics} metrics, {done.files} files, {done.models} "
        f"models, {done.versions} registered versions arrived as sent"
    )
