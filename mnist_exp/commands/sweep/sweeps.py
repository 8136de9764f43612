"""python -m mnist_exp sweep list: the sweeps of a store."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import click
from rich.table import Table

from mnist_exp.commands.options import json_option, print_json, with_store
from mnist_exp.commands.sweep.steer import is_run
from mnist_exp.terminal import Console, format_duration
from mnist_exp.tracking.find import SWEEPS, list_runs
from mnist_exp.tracking.requests import is_paused, read_requests
from mnist_exp.tracking.store import Store, store_errors
from mnist_exp.tracking.stored_run import StoredRun

OUTCOMES = {"scored": "complete", "pruned": "pruned", "failed": "failed", "infeasible": "infeasible"}


@dataclass(frozen=True)
class Listed:
    """A sweep, as far as its own run tells. outcomes: the trials that ended. waiting: requests without an answer."""

    run: StoredRun

    @property
    def state(self) -> str:
        """running, paused, interrupted (its process is gone), finished, failed or stopped."""
        if self.run.status == "RUNNING":
            return "interrupted" if not is_run(self.run) else "paused" if is_paused(self.run) else "running"
        return {"FINISHED": "finished", "FAILED": "failed"}.get(self.run.status, "stopped")

    @property
    def outcomes(self) -> dict[str, int]:
        """The number of trials that ended, by outcome."""
        counts = {word: int(self.run.metrics.get(f"trials/{name}", 0)) for name, word in OUTCOMES.items()}
        return {word: count for word, count in counts.items() if count}

    @property
    def best(self) -> float | None:
        """The best score; None without a complete trial."""
        return self.run.metrics.get("best/score")

    @property
    def waiting(self) -> int:
        """The number of requests without an answer."""
        return sum(asked.answer is None for asked in read_requests(self.run))


def list_sweeps(store: Store) -> Iterator[Listed]:
    """Yields the sweeps of a store, the newest first."""
    with store_errors(store.uri):
        yield from map(Listed, list_runs(store, SWEEPS))


@click.command("list")
@json_option("an array with an object per sweep: name, id, state, outcomes, best, started, requests_waiting.")
@with_store
def list_command(as_json: bool, store: Store) -> None:
    """Lists the sweeps of the store, the newest first."""
    sweeps = list(list_sweeps(store))
    if as_json:
        print_json(
            [
                {
                    "name": one.run.name, "id": one.run.id, "state": one.state, "outcomes": one.outcomes,
                    "best": one.best, "started": one.run.started, "requests_waiting": one.waiting,
                }
                for one in sweeps
            ]
        )  # fmt: skip
        return
    if not sweeps:
        click.echo("no sweep yet; start one with: python -m mnist_exp -m sweeps=smoke")
        return
    rows = [
        (
            one.run.name,
            one.run.id[:8],
            one.state + (f", {one.waiting} waiting" if one.waiting else ""),
            ", ".join(f"{count} {word}" for word, count in one.outcomes.items()) or "none",
            "" if one.best is None else f"{one.best:.4f}",
            f"{format_duration(time.time() - one.run.started)} ago",
        )
        for one in sweeps
    ]
    table = Table("sweep", "id", "state", "trials", "best", "started", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    Console().console.print(table)
