"""Options and output that several commands share: the store, the run, the port, JSON."""

import functools
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mnist_exp.config.check import find_problems
from mnist_exp.config.schema import Tracking
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.log import hide_library_output
from mnist_exp.signals import Terminated, exit_status, raise_on_signals
from mnist_exp.tracking.find import Found
from mnist_exp.tracking.store import Store, connect_existing

HOST = "127.0.0.1"
RUN = "An id, a name, latest, best, best:DATASET or models:/NAME@ALIAS."
RUN_IS = f"RUN: {RUN[0].lower()}{RUN[1:]}"  # below the help of a command

WHITELIST = "--execution-whitelist"  # as in Hydra 1.4

run_option = click.option("--run", default="best", show_default=True, help=RUN)


def _check_entries(context: click.Context, option: click.Parameter, entries: tuple[str, ...]) -> tuple[str, ...]:
    if list(find_problems({"tracking": {"execution_whitelist": list(entries)}}, ["tracking"])):
        rule = "must be a target, such as my_nets.wide, or a prefix, such as my_nets.*"
        raise ConfigError(Problem(WHITELIST, rule, list(entries)))
    return entries


whitelist_option = click.option(
    WHITELIST, "allowed", multiple=True, metavar="TARGET", callback=_check_entries,
    help="A target, or PREFIX.*, that the recorded config may run; may be repeated.",
)  # fmt: skip


def allow(store: Store, entries: tuple[str, ...]) -> Store:
    """Returns the store with these entries of --execution-whitelist."""
    return replace(store, whitelist=replace(store.whitelist, entries=entries, option=f"{WHITELIST} {{}}"))


def port_option(default: int) -> Callable[..., Any]:
    """Adds --port to a command."""
    kind = click.IntRange(0, 65535)
    return click.option("--port", type=kind, default=default, show_default=True, help="0 takes any free port.")


def json_option(shape: str) -> Callable[..., Any]:
    """Adds --json to a command, which gets it as `as_json`. shape: what is printed, for --help."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print JSON: {shape}")


def print_found(found: Found, as_json: bool = False) -> None:
    """Prints run, data set, score and reason before a command uses the run: on standard error if it prints JSON."""
    click.echo(found.line, err=as_json)


def print_json(values: Any) -> None:
    """Prints plain values, and paths as text, as JSON."""
    click.echo(json.dumps(values, indent=1, default=str))


def with_tracking(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --folder and --uri to a command, which gets them as `settings`."""

    @click.option("--folder", default="mlruns", show_default=True, help="The folder of the local store.")
    @click.option("--uri", help="Another store; by default MLFLOW_TRACKING_URI, if it is set.")
    @functools.wraps(command)
    def wrapped(*args: Any, folder: str, uri: str | None, **keys: Any) -> Any:
        return command(*args, settings=Tracking(uri=uri, folder=folder), **keys)

    return wrapped


def with_store(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --folder and --uri to a command, which gets the opened store as `store`."""

    @with_tracking
    @functools.wraps(command)
    def wrapped(*args: Any, settings: Tracking, **keys: Any) -> Any:
        with hide_library_output():
            store = connect_existing(settings)
        return command(*args, store=store, **keys)

    return wrapped


@contextmanager
def write_errors(option: str, path: Path) -> Iterator[None]:
    """Raises ConfigError if a file cannot be written: the folder is missing, or its suffix is not a known format."""
    try:
        yield
    except (OSError, ValueError) as error:
        rule, remedy = f"{path} cannot be written ({error})", "name a file with a known suffix in a folder that exists"
        raise ConfigError(Problem(option, rule, remedy=remedy)) from error


@contextmanager
def until_stopped() -> Iterator[None]:
    """Ends the block of a server on Ctrl-C, and the process with status 143 on SIGTERM, 129 on SIGHUP."""
    try:
        with raise_on_signals():
            yield
    except KeyboardInterrupt:
        return
    except Terminated as stop:
        raise SystemExit(exit_status(stop)) from stop


def choose_port(port: int) -> int:
    """Returns the port, or a free one if it is in use or 0. Prints which one it is if it is in use."""
    if port and not is_listening(port):
        return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        free = int(probe.getsockname()[1])
    if port:
        click.echo(f"port {port} is in use; using port {free}")
    return free


def is_listening(port: int) -> bool:
    """Returns whether a process answers on the port."""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False
