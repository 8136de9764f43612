"""python -m mnist_exp store: checks a local store, and repairs one whose folder moved."""

from pathlib import Path

import click

from mnist_exp.tracking.moving import check_store, move_store


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
