"""python -m mnist_exp sweep status NAME: the progress of a sweep, from any machine that reaches its store."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import click

from mnist_exp.commands.options import json_option, print_json, with_store
from mnist_exp.config.objective import Objective
from mnist_exp.terminal import format_duration
from mnist_exp.tracking import tags
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, TrialRun
from mnist_exp.tracking.sweep_run import SweepRun


@dataclass(frozen=True)
class Progress:
    """The progress of a sweep.

    total: the number of trials, None if it has no fixed number. outcomes: the number of trials that ended, by outcome.
    running: the host of each trial that runs, by number.
    """

    run: StoredRun
    objective: str
    total: int | None
    outcomes: Mapping[str, int]
    best: TrialRun | None
    running: Mapping[int, str]
    seconds_left: float | None

    @property
    def ended(self) -> int:
        """The number of trials that will not run again."""
        return sum(self.outcomes.values())


def read_progress(store: Store, wanted: str) -> Progress:
    """Returns the progress of a sweep. wanted: its id, its name or `latest`. Raises TrackingError if it is unknown."""
    from mnist_exp.sweep.stored_values import read_stored_space

    sweep = SweepRun.find(store, wanted)
    settings, trials = sweep.record["settings"], sweep.trials()
    objective = Objective(settings["objective"], settings["direction"])
    ended = [trial for trial in trials if trial.outcome != "pending"]
    scored = [trial for trial in ended if trial.has_score]
    best = min(scored, key=lambda trial: objective.rank(trial.score or 0.0), default=None)
    if best:
        _, stored = read_stored_space(sweep.record)
        best = replace(best, values=stored.decode(best.values))
    running = {trial.number: trial.tags.get(tags.HOST, "?") for trial in trials if _is_running(trial)}
    total, left = settings["max_trials"], None
    if total and ended and running:
        left = sum(trial.seconds for trial in ended) / len(ended) * (total - len(ended)) / len(running)
    outcomes = Counter(str(trial.outcome) for trial in ended)
    return Progress(sweep.run, objective.metric, total, outcomes, best, running, left)


def _is_running(trial: TrialRun) -> bool:
    """Whether a worker has the trial: it has set the tag `folder`."""
    return trial.outcome == "pending" and trial.status == "RUNNING" and tags.FOLDER in trial.tags


@click.group(help=__doc__)
def command() -> None:
    """Its sub-commands."""


@command.command()
@click.argument("name", default="latest")
@json_option("an object: name, id, status, host, pid, objective, total, ended, outcomes, best, running, seconds_left.")
@with_store
def status(name: str, as_json: bool, store: Store) -> None:
    """Prints trials by outcome, the best, where trials run, and about how long it will take."""
    progress = read_progress(store, name)
    if as_json:
        print_json(_plain(progress))
        return
    from mnist_exp.sweep.display import format_values

    run, values = progress.run, progress.run.tags
    host, pid = values.get(tags.HOST, "?"), values.get(tags.PID, "?")
    click.echo(f"{run.label}: {run.status}, on {host} pid {pid}")
    of = f" of {progress.total}" if progress.total else ""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(progress.outcomes.items()))
    click.echo(f"trials   {progress.ended}{of} ended{f': {outcomes}' if outcomes else ''}")
    if progress.best:
        click.echo(f"best     {progress.objective} {progress.best.score:.4f}, trial {progress.best.number}")
        click.echo(f"         {format_values(progress.best.values)}")
    hosts = Counter(progress.running.values())
    click.echo(f"running  {len(progress.running)}{''.join(f'; {count} on {host}' for host, count in hosts.items())}")
    if progress.seconds_left is not None:
        click.echo(f"left     about {format_duration(progress.seconds_left)}")


def _plain(progress: Progress) -> dict[str, object]:
    run, best = progress.run, progress.best
    return {
        "name": run.name,
        "id": run.id,
        "status": run.status,
        "host": run.tags.get(tags.HOST),
        "pid": run.tags.get(tags.PID),
        "objective": progress.objective,
        "total": progress.total,
        "ended": progress.ended,
        "outcomes": dict(progress.outcomes),
        "best": best and {"trial": best.number, "score": best.score, "values": best.values},
        "running": [{"trial": number, "host": host} for number, host in progress.running.items()],
        "seconds_left": progress.seconds_left,
    }
