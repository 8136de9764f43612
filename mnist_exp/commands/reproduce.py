"""python -m mnist_exp reproduce RUN: trains a recorded run again and says whether the same came out."""

import tempfile
from dataclasses import replace
from pathlib import Path

import click

from mnist_exp.commands.options import with_tracking
from mnist_exp.terminal import Terminal, chatter_in_log
from mnist_exp.tracking import Tracking, existing_store


@click.command(help=__doc__)
@click.argument("run")
@click.option("--check", is_flag=True, help="Only compare versions, commit and hardware; train nothing.")
@click.option("--experiment", help="Where the new run is recorded; else where the first one is.")
@with_tracking
def command(run: str, check: bool, experiment: str | None, tracking: Tracking) -> None:
    """Exits with 1 where the result is different, or with --check where anything around it is."""
    from mnist_exp import reproducing
    from mnist_exp.tracking import environment

    store = existing_store(tracking)
    first = reproducing.recorded(store, run)
    experiment = experiment or store.client.get_experiment(first.run.info.experiment_id).name
    tracking = replace(tracking, experiment=experiment)
    with tempfile.TemporaryDirectory() as empty, chatter_in_log():
        found = reproducing.changes(first.run, environment.tags(Path(empty)))
    for key, (before, now) in found.items():
        click.echo(f"{key}: {before} then, {now} now")
    if not found:
        click.echo("versions, commit and hardware are those of the run")
    if check:
        raise SystemExit(bool(found))
    terminal = Terminal()
    with chatter_in_log() as terminal.chatter, terminal.cleared():
        again = reproducing.reproduce(store, tracking, first, terminal)
    first_accuracy, accuracy = again.accuracies
    click.echo(f"validation accuracy {first_accuracy:.4%} then, {accuracy:.4%} now")
    click.echo(f"largest difference of a weight {again.largest:.2g}")
    if again.test and again.verdict != "identical":
        click.echo(
            f"of {again.test.images:,} validation images only the new one has {again.test.first_only} right, only the "
            f"first {again.test.second_only}; p={again.test.p:.2g}"
        )
    click.echo(f"verdict: {again.verdict}  ({again.name}, {again.run_id[:8]})")
    raise SystemExit(again.verdict == "different")
