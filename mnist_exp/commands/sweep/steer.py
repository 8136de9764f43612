"""Asks a sweep for something: stop, pause, continue, more, add, retry, widen.

A request is kept in the store. The process that runs the sweep answers it within seconds, on whatever machine it is; if
none runs, it is answered when the sweep is resumed.
"""

from collections.abc import Mapping
from typing import Any

import click

from mnist_exp.commands.options import json_option, print_json, with_store
from mnist_exp.errors import ConfigError, Problem, TrackingError
from mnist_exp.tracking.owner import check_own, has_process, newest_owner
from mnist_exp.tracking.requests import OF_A_PROCESS, Kind, send_request, wait_for_answer
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, fetch_run
from mnist_exp.tracking.sweep_run import SweepRun

PATIENCE = 20.0  # seconds in which a process answers; it looks every two


def is_run(sweep: StoredRun) -> bool:
    """Whether a process runs the sweep that answers requests; versions before owners existed do not."""
    return newest_owner(sweep) is not None and has_process(sweep)


def ask(store: Store, wanted: str, kind: Kind, arguments: Mapping[str, Any], as_json: bool) -> None:
    """Sends a request to a sweep, waits for the answer and prints it. Raises TrackingError if it is refused."""
    run = SweepRun.find(store, wanted).run
    check_own(run)
    resume = f"python -m mnist_exp -m sweep.resume={run.id[:8]}"
    if kind in OF_A_PROCESS and not is_run(run):
        raise TrackingError(
            Problem(f"the sweep {run.label}", f"does not run (it is {run.status})", remedy=f"resume it with: {resume}")
        )
    request = send_request(store, run, kind, arguments)
    answer = wait_for_answer(store, run, request.number, PATIENCE, lambda now: not is_run(now))
    if as_json:
        found = None if answer is None else {"accepted": answer.accepted, "text": answer.text}
        print_json({"sweep": run.id, "request": request.number, "kind": kind, "answer": found})
        raise SystemExit(bool(answer and not answer.accepted))
    if answer is None and kind in OF_A_PROCESS and not is_run(fetch_run(store, run.id)):
        click.echo("ended     the sweep came to its end meanwhile")
    elif answer is None:
        why = "no process runs the sweep" if not is_run(run) else f"its process has not answered within {PATIENCE:g} s"
        click.echo(f"waiting   {why}; the request is kept and answered at the latest by: {resume}")
    elif answer.accepted:
        click.echo(f"accepted  {answer.text}")
    else:
        raise TrackingError(Problem(f"{run.label} has refused:", answer.text))


def _steers(name: Kind) -> Any:
    """Makes a command of a function: of the sweep NAME, with --json and the options of the store."""

    def wrap(function: Any) -> click.Command:
        shape = "an object: sweep, request, kind, answer (null: not yet; else accepted, text)."
        with_options = json_option(shape)(with_store(function))
        return click.command(name)(click.argument("name", metavar="NAME")(with_options))

    return wrap


@_steers("stop")
@click.option("--now", is_flag=True, help="End the running trials at once; a resume runs them again.")
def stop(name: str, now: bool, as_json: bool, store: Store) -> None:
    """Starts no more trials and ends the sweep when the running ones have ended; sweep.resume continues it."""
    ask(store, name, "stop", {"now": now, "words": ["--now"] * now}, as_json)


@_steers("pause")
def pause(name: str, as_json: bool, store: Store) -> None:
    """Starts no more trials until `sweep continue`; the running ones come to their end."""
    ask(store, name, "pause", {}, as_json)


@_steers("continue")
def continue_(name: str, as_json: bool, store: Store) -> None:
    """Lets a paused sweep start trials again."""
    ask(store, name, "continue", {}, as_json)


@_steers("more")
@click.argument("count", type=click.IntRange(1))
def more(name: str, count: int, as_json: bool, store: Store) -> None:
    """Lets the sweep run COUNT more trials than sweep.max_trials says."""
    ask(store, name, "more", {"count": count, "words": [count]}, as_json)


@_steers("add")
@click.argument("values", nargs=-1, required=True, metavar="KEY=VALUE...")
def add(name: str, values: tuple[str, ...], as_json: bool, store: Store) -> None:
    """Runs a trial with these values next; what is not given is as in the best trial so far."""
    _check_words(values)
    ask(store, name, "add", {"words": list(values)}, as_json)


@_steers("retry")
@click.argument("trials", nargs=-1, required=True, type=click.IntRange(0))
def retry(name: str, trials: tuple[int, ...], as_json: bool, store: Store) -> None:
    """Runs failed TRIALS again, under the same numbers."""
    ask(store, name, "retry", {"trials": list(trials), "words": list(trials)}, as_json)


@_steers("widen")
@click.argument("values", nargs=-1, required=True, metavar="KEY=VALUES...")
def widen(name: str, values: tuple[str, ...], as_json: bool, store: Store) -> None:
    """Gives parameters other values, such as 'optimizer.learning_rate=tag(log,interval(1e-5,1e-1))'.

    Trials inside of the new space keep counting; the others keep their numbers and may not win.
    """
    _check_words(values)
    ask(store, name, "widen", {"words": list(values)}, as_json)


def _check_words(words: tuple[str, ...]) -> None:
    bad = next((word for word in words if "=" not in word), None)
    if bad is not None:
        raise ConfigError(Problem(repr(bad), "must be KEY=VALUE, in quotes if the shell would read it"))


COMMANDS: tuple[click.Command, ...] = (stop, pause, continue_, more, add, retry, widen)
