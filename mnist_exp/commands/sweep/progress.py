"""python -m mnist_exp sweep status and show: the progress of a sweep, from any machine that reaches its store."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from mnist_exp.commands.options import json_option, print_json, until_stopped, with_store
from mnist_exp.commands.tables import print_indented
from mnist_exp.config.objective import Objective
from mnist_exp.terminal import format_duration
from mnist_exp.tracking import tags
from mnist_exp.tracking.owner import newest_owner, state_of
from mnist_exp.tracking.requests import Asked, is_paused, read_requests
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, TrialRun, read_curve
from mnist_exp.tracking.sweep_run import SweepRun

if TYPE_CHECKING:
    from mnist_exp.sweep.display import SweepDisplay

LOOK = 2.0  # seconds between looks at the store
SHOWN, LETTERS = 5, 40  # requests, and letters of each


@dataclass(frozen=True)
class Progress:
    """The progress of a sweep.

    trials: one run of each. total: the number of trials, None if it has no fixed number. outcomes: the number of trials
    that ended, by outcome.
    running: the host of each trial that runs, by number. opened: how many models were evaluated on the test set.
    """

    run: StoredRun
    objective: Objective
    trials: Sequence[TrialRun]
    total: int | None
    outcomes: Mapping[str, int]
    best: TrialRun | None
    running: Mapping[int, str]
    seconds_left: float | None
    opened: int

    @property
    def requests(self) -> list[Asked]:
        """What people have asked of the sweep, the last first."""
        return read_requests(self.run)[::-1]

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
    from mnist_exp.sweep.stored_values import OUTSIDE, judge, read_stored_space
    from mnist_exp.sweep.winner import rank

    sweep = SweepRun.find(store, wanted)
    settings, (space, stored) = sweep.record["settings"], read_stored_space(sweep.record)
    objective = Objective(settings["objective"], settings["direction"])
    trials = judge(sweep.trials(), space, stored)
    ended = [trial for trial in trials if trial.outcome != "pending"]
    best = next(iter(rank(ended, objective)), None)
    running = {trial.number: trial.tags.get(tags.HOST, "?") for trial in trials if _is_running(trial)}
    if sweep.record.get("algorithm") == "hyperband":
        size = sweep.record.get("size")
    else:
        outside = sum(trial.excluded == OUTSIDE for trial in trials)
        size = space.size + outside if space.parameters and space.finite else None
    total, left = min((most for most in (size, settings["max_trials"]) if most is not None), default=None), None
    if total and ended and running:
        left = sum(trial.seconds for trial in ended) / len(ended) * (total - len(ended)) / len(running)
    outcomes = Counter(str(trial.outcome) for trial in ended)
    opened = len(sweep.openings())
    return Progress(sweep.run, objective, trials, total, outcomes, best, running, left, opened)


def _is_running(trial: TrialRun) -> bool:
    """Whether a worker has the trial: it has set the tag `folder`, and its process is not known to be gone."""
    has_worker = trial.outcome == "pending" and trial.status == "RUNNING" and tags.FOLDER in trial.tags
    return has_worker and state_of(trial.tags) != "dead"


@click.command("status")
@click.argument("name", default="latest")
@json_option(
    "an object: name, id, status, host, pid, alive (null: not known), objective, total, ended, outcomes, best, "
    "running, seconds_left, test_set_opened, paused, requests_waiting, requests (the last first: request, by, when, "
    "accepted, answer)."
)
@with_store
def status_command(name: str, as_json: bool, store: Store) -> None:
    """Prints trials by outcome, the best, where trials run, and about how long it will take."""
    progress = read_progress(store, name)
    if as_json:
        print_json(_plain(progress))
    else:
        _print(progress)


@click.command("show")
@click.argument("name", default="latest")
@with_store
def show_command(name: str, store: Store) -> None:
    """Shows a sweep as its own terminal does, until it ends or Ctrl-C; in a log, once."""
    from mnist_exp.sweep.display import SweepDisplay

    display = SweepDisplay()
    if not display.console.is_interactive:
        _print(read_progress(store, name))
        return
    with until_stopped(), display.live():
        while True:
            progress = read_progress(store, name)
            _fill(display, progress, store)
            if progress.run.status != "RUNNING" or progress.alive is False:
                break
            time.sleep(LOOK)
    click.echo(f"{progress.run.label}: {_describe_process(progress)}")


def _print(progress: Progress) -> None:
    from mnist_exp.evaluation.plots import shorten
    from mnist_exp.sweep.display import format_values

    click.echo(f"{progress.run.label}: {_describe_process(progress)}")
    of = f" of {progress.total}" if progress.total else ""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(progress.outcomes.items()))
    click.echo(f"trials   {progress.ended}{of} ended{f': {outcomes}' if outcomes else ''}")
    if progress.best:
        click.echo(f"best     {progress.objective.metric} {progress.best.score:.4f}, trial {progress.best.number}")
        click.echo(f"         {format_values(progress.best.values)}")
    hosts = Counter(progress.running.values())
    click.echo(f"running  {len(progress.running)}{''.join(f'; {count} on {host}' for host, count in hosts.items())}")
    if progress.opened:
        click.echo(f"test set opened for {progress.opened} {'model' if progress.opened == 1 else 'models'}")
    if progress.seconds_left is not None:
        click.echo(f"left     about {format_duration(progress.seconds_left)}")
    for asked in progress.requests[:SHOWN]:
        what = "waits" if asked.answer is None else "accepted" if asked.answer.accepted else "refused"
        click.echo(f"request  {shorten(str(asked.request), LETTERS)} ({asked.request.by}): {what}")
        if asked.answer:
            print_indented(asked.answer.text)


def _fill(display: "SweepDisplay", progress: Progress, store: Store) -> None:
    """Gives a display what the store knows of the sweep."""
    from mnist_exp.sweep.display import TrialRow

    ended = {trial.number: trial for trial in progress.trials if trial.outcome != "pending"}
    running = {trial.number: trial for trial in progress.trials if trial.number in progress.running}
    display.follow(progress.objective, progress.total, ended)
    display.is_paused = is_paused(progress.run)
    for number in display.running.keys() - running.keys():
        del display.running[number]
    for number, trial in running.items():
        row = display.running.setdefault(number, TrialRow(trial.run_id, trial.values))
        row.curve = read_curve(store, trial.run_id, progress.objective.metric)


def _describe_process(progress: Progress) -> str:
    """Returns the status, and where the sweep runs or how it continues."""
    run, process = progress.run, progress.process
    place = f"on {process.get(tags.HOST, '?')} pid {process.get(tags.PID, '?')}"
    if run.status == "RUNNING" and progress.alive is False:
        resume = f"continue with: python -m mnist_exp -m sweep.resume={run.id[:8]}"
        return f"its process {place} is gone; {resume}"
    if run.status == "RUNNING" and is_paused(run):
        return f"paused, {place}; go on with: python -m mnist_exp sweep continue {run.id[:8]}"
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
        "objective": progress.objective.metric,
        "total": progress.total,
        "ended": progress.ended,
        "outcomes": dict(progress.outcomes),
        "best": best and {"trial": best.number, "score": best.score, "values": best.values},
        "running": [{"trial": number, "host": host} for number, host in progress.running.items()],
        "seconds_left": progress.seconds_left,
        "test_set_opened": progress.opened,
        "paused": is_paused(run),
        "requests_waiting": sum(asked.answer is None for asked in progress.requests),
        "requests": [
            {
                "request": str(asked.request),
                "by": asked.request.by,
                "when": asked.request.when,
                "accepted": asked.answer and asked.answer.accepted,
                "answer": asked.answer and asked.answer.text,
            }
            for asked in progress.requests
        ],
    }
