"""python -m mnist_exp sweep status NAME: the progress of a sweep, from any machine that reaches its store."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import click

from mnist_exp.commands.options import json_option, print_json, with_store
from mnist_exp.config.objective import Objective
from mnist_exp.terminal import format_duration
from mnist_exp.tracking import tags
from mnist_exp.tracking.owner import newest_owner, state_of
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, TrialRun
from mnist_exp.tracking.sweep_run import SweepRun


@dataclass(frozen=True)
class Progress:
    """The progress of a sweep.

    total: the number of trials, None if it has no fixed number. outcomes: the number of trials that ended, by outcome.
    running: the host of each trial that runs, by number. opened: how many models were evaluated on the test set.
    """

    run: StoredRun
    objective: str
    total: int | None
    outcomes: Mapping[str, int]
    best: TrialRun | None
    running: Mapping[int, str]
    seconds_left: float | None
    opened: int

    @property
    def process(self) -> Mapping[str, str]:
        """The tags of the process that has run the sweep last."""
        owner = newest_owner(self.run)
        return owner.process if owner else self.run.tags

    @property
    def alive(self) -> bool | None:
        """Whether that process lives; None if it cannot be seen from here."""
        state = state_of(self.process)
        return None if state == "unknown" else state == "alive"

    @property
    def silence(self) -> float | None:
        """The seconds since its last heartbeat, by the clocks of both machines; None if there is none."""
        beat = self.run.tags.get(tags.HEARTBEAT)
        return None if beat is None else max(0.0, time.time() - float(beat.split()[1]))

    @property
    def ended(self) -> int:
        """The number of trials that will not run again."""
        return sum(self.outcomes.values())


def read_progress(store: Store, wanted: str) -> Progress:
    """Returns the progress of a sweep. wanted: its id, its name or `latest`. Raises TrackingError if it is unknown."""
    from mnist_exp.sweep.stored_values import read_stored_space
    from mnist_exp.sweep.winner import rank

    sweep = SweepRun.find(store, wanted)
    settings, trials = sweep.record["settings"], sweep.trials()
    objective = Objective(settings["objective"], settings["direction"])
    ended = [trial for trial in trials if trial.outcome != "pending"]
    space, stored = read_stored_space(sweep.record)
    best = next(iter(rank(ended, objective)), None)
    if best:
        best = replace(best, values=stored.decode(best.values))
    running = {trial.number: trial.tags.get(tags.HOST, "?") for trial in trials if _is_running(trial)}
    counted = space.parameters and space.finite and sweep.record.get("algorithm") != "hyperband"
    size = sweep.record.get("size", space.size if counted else None)
    total, left = min((most for most in (size, settings["max_trials"]) if most is not None), default=None), None
    if total and ended and running:
        left = sum(trial.seconds for trial in ended) / len(ended) * (total - len(ended)) / len(running)
    outcomes = Counter(str(trial.outcome) for trial in ended)
    opened = len(sweep.openings())
    return Progress(sweep.run, objective.metric, total, outcomes, best, running, left, opened)


def _is_running(trial: TrialRun) -> bool:
    """Whether a worker has the trial: it has set the tag `folder`, and its process is not known to be gone."""
    has_worker = trial.outcome == "pending" and trial.status == "RUNNING" and tags.FOLDER in trial.tags
    return has_worker and state_of(trial.tags) != "dead"


@click.group(help=__doc__)
def command() -> None:
    """Its sub-commands."""


@command.command()
@click.argument("name", default="latest")
@json_option(
    "an object: name, id, status, host, pid, alive (null: not known), objective, total, ended, outcomes, best, "
    "running, seconds_left, test_set_opened."
)
@with_store
def status(name: str, as_json: bool, store: Store) -> None:
    """Prints trials by outcome, the best, where trials run, and about how long it will take."""
    progress = read_progress(store, name)
    if as_json:
        print_json(_plain(progress))
        return
    from mnist_exp.sweep.display import format_values

    click.echo(f"{progress.run.label}: {_describe_process(progress)}")
    of = f" of {progress.total}" if progress.total else ""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(progress.outcomes.items()))
    click.echo(f"trials   {progress.ended}{of} ended{f': {outcomes}' if outcomes else ''}")
    if progress.best:
        click.echo(f"best     {progress.objective} {progress.best.score:.4f}, trial {progress.best.number}")
        click.echo(f"         {format_values(progress.best.values)}")
    hosts = Counter(progress.running.values())
    click.echo(f"running  {len(progress.running)}{''.join(f'; {count} on {host}' for host, count in hosts.items())}")
    if progress.opened:
        click.echo(f"test set opened for {progress.opened} {'model' if progress.opened == 1 else 'models'}")
    if progress.seconds_left is not None:
        click.echo(f"left     about {format_duration(progress.seconds_left)}")


def _describe_process(progress: Progress) -> str:
    """Returns the status, and where the sweep runs or how it continues."""
    run, process = progress.run, progress.process
    place = f"on {process.get(tags.HOST, '?')} pid {process.get(tags.PID, '?')}"
    if run.status == "RUNNING" and progress.alive is False:
        resume = f"continue with: python -m mnist_exp -m sweep.resume={run.id[:8]}"
        return f"its process {place} is gone; {resume}"
    if run.status == "RUNNING" and progress.alive is None and progress.silence is not None:
        return f"RUNNING, {place}, last heartbeat {format_duration(progress.silence)} ago"
    return f"{run.status}, {place}"


def _plain(progress: Progress) -> dict[str, object]:
    run, best = progress.run, progress.best
    return {
        "name": run.name,
        "id": run.id,
        "status": run.status,
        "host": progress.process.get(tags.HOST),
        "pid": progress.process.get(tags.PID),
        "alive": progress.alive,
        "objective": progress.objective,
        "total": progress.total,
        "ended": progress.ended,
        "outcomes": dict(progress.outcomes),
        "best": best and {"trial": best.number, "score": best.score, "values": best.values},
        "running": [{"trial": number, "host": host} for number, host in progress.running.items()],
        "seconds_left": progress.seconds_left,
        "test_set_opened": progress.opened,
    }
