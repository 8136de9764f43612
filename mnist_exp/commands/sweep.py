"""python -m mnist_exp sweep status NAME: how a sweep is doing, from any machine that reaches its store."""

from collections import Counter

import click

from mnist_exp.commands.options import with_tracking
from mnist_exp.terminal import duration
from mnist_exp.tracking import Tracking, existing_store


@click.group(help=__doc__)
def command() -> None:
    """Its sub-commands."""


@command.command()
@click.argument("name", default="latest")
@with_tracking
def status(name: str, tracking: Tracking) -> None:
    """Prints trials by state, the best, where trials run, and about how long it will take."""
    from mnist_exp.sweep.board import said
    from mnist_exp.tracking.sweeps import progress

    found = progress(existing_store(tracking), name)
    click.echo(f"{found.name} ({found.run_id[:8]}): {found.status}, on {found.host} pid {found.pid}")
    of = f" of {found.total}" if found.total else ""
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.states.items()))
    click.echo(f"trials   {found.ended}{of} ended{f': {states}' if states else ''}")
    if found.best:
        click.echo(f"best     {found.objective} {found.best.score:.4f}, trial {found.best.number}")
        click.echo(f"         {said(found.best.values)}")
    hosts = Counter(host for _, host in found.running)
    click.echo(f"running  {len(found.running)}{''.join(f'; {count} on {host}' for host, count in hosts.items())}")
    if found.seconds_left is not None:
        click.echo(f"left     about {duration(found.seconds_left)}")
