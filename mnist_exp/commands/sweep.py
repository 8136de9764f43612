"""python -m mnist_exp sweep status NAME: how a sweep is doing, from any machine that reaches its store."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from mnist_exp.commands.options import with_tracking
from mnist_exp.config.objective import Objective
from mnist_exp.config.schema import Tracking
from mnist_exp.terminal import duration
from mnist_exp.tracking.find import SWEEPS, find_run
from mnist_exp.tracking.store import Store, answering, existing_store
from mnist_exp.tracking.sweep_run import FROZEN, Attempt, SweepRecord


@click.group(help=__doc__)
def command() -> None:
    """Its sub-commands."""


@command.command()
@click.argument("name", default="latest")
@with_tracking
def status(name: str, tracking: Tracking) -> None:
    """Prints trials by state, the best, where trials run, and about how long it will take."""
    from mnist_exp.sweep.display import format_values

    found = progress(existing_store(tracking), name)
    click.echo(f"{found.name} ({found.run_id[:8]}): {found.status}, on {found.host} pid {found.pid}")
    of = f" of {found.total}" if found.total else ""
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.states.items()))
    click.echo(f"trials   {found.ended}{of} ended{f': {states}' if states else ''}")
    if found.best:
        click.echo(f"best     {found.objective} {found.best.score:.4f}, trial {found.best.number}")
        click.echo(f"         {format_values(found.best.values)}")
    hosts = Counter(host for _, host in found.running)
    click.echo(f"running  {len(found.running)}{''.join(f'; {count} on {host}' for host, count in hosts.items())}")
    if found.seconds_left is not None:
        click.echo(f"left     about {duration(found.seconds_left)}")


@dataclass(frozen=True)
class Progress:
    """How far a sweep is. states: of trials that ended; running: numbers of trials under way and their hosts."""

    name: str
    run_id: str
    status: str
    host: str
    pid: str
    objective: str
    total: int | None
    states: Mapping[str, int]
    best: Attempt | None
    running: Sequence[tuple[int, str]]
    seconds_left: float | None

    @property
    def ended(self) -> int:
        """Trials that will not run again."""
        return sum(self.states.values())


def progress(store: Store, wanted: str) -> Progress:
    """That of the sweep of this id, name or `latest`. Raises TrackingError where it is unknown."""
    from mnist_exp.sweep.stored_values import read_stored_space
    from mnist_exp.sweep.winner import rank

    run = find_run(store, wanted, among=SWEEPS)
    with answering(store.uri):
        frozen = json.loads(Path(store.client.download_artifacts(run.info.run_id, FROZEN)).read_text())
    settings = frozen["settings"]
    record = SweepRecord(store, run.info.experiment_id, run.info.run_id, str(run.info.run_name), frozen)
    attempts = record.attempts()
    ended = [attempt for attempt in attempts if attempt.outcome != "pending"]
    running = [
        (attempt.number, attempt.tags.get("host", "?"))
        for attempt in attempts
        if attempt.outcome == "pending" and attempt.status == "RUNNING" and "folder" in attempt.tags
    ]
    best = next(iter(rank(attempts, Objective(settings["objective"], settings["direction"]))), None)
    if best:
        best = replace(best, values=read_stored_space(frozen)[1].decode(best.values))
    total, left = settings["max_trials"], None
    if total and ended and running:
        left = sum(attempt.seconds for attempt in ended) / len(ended) * (total - len(ended)) / len(running)
    tags = run.data.tags
    return Progress(
        record.name,
        record.id,
        run.info.status,
        tags.get("host", "?"),
        tags.get("pid", "?"),
        settings["objective"],
        total,
        Counter(attempt.outcome for attempt in ended),
        best,
        running,
        left,
    )
