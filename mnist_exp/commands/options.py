"""What the commands have in common: where the store is."""

import functools
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click

from mnist_exp.config.schema import Tracking


def with_tracking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --folder and --uri to a command, and hands it what they say as `tracking`."""

    @click.option("--folder", default="mlruns", show_default=True, help="The folder of the local store.")
    @click.option("--uri", help="Another store; MLFLOW_TRACKING_URI counts too.")
    @functools.wraps(function)
    def command(*args: Any, folder: str, uri: str | None, **keys: Any) -> Any:
        return function(*args, tracking=Tracking(enabled=True, uri=uri, experiment="", folder=folder), **keys)

    return command


HOST = "127.0.0.1"


def usable(port: int) -> int:
    """The port itself, or one that is free where it is taken, which is said, or 0."""
    if port and not listening(port):
        return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        free = int(probe.getsockname()[1])
    if port:
        click.echo(f"port {port} is in use; this is {free}")
    return free


def listening(port: int) -> bool:
    """Whether something answers there."""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False
