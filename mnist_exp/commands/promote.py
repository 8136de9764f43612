"""python -m mnist_exp promote RUN: registers a run's model and makes it the champion, if it is not worse than that."""

import click

from mnist_exp.commands.options import with_tracking
from mnist_exp.terminal import chatter_in_log
from mnist_exp.tracking import Tracking, existing_store


@click.command(help=__doc__)
@click.argument("run")
@click.option("--name", default="mnist_exp", show_default=True, help="Of the registered model.")
@click.option("--force", is_flag=True, help="Promote it even if it is worse.")
@with_tracking
def command(run: str, name: str, force: bool, tracking: Tracking) -> None:
    """Says how it did against the champion before."""
    from mnist_exp.promoting import promote

    with chatter_in_log():
        done = promote(existing_store(tracking), run, name, force)
    if done.test:
        click.echo(
            f"{done.test.verdict} against version {done.before}: of {done.test.images:,} validation images only this "
            f"one has {done.test.first_only} right, only that {done.test.second_only} (p={done.test.p:.2g})"
        )
    elif done.before:
        click.echo(f"not compared with version {done.before}: they share no validation images")
    click.echo(f"{done.uri} is version {done.version}")
