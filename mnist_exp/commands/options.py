"""What the commands have in common: where the store is."""

import functools
from collections.abc import Callable
from typing import Any

import click

from mnist_exp.tracking import Tracking


def with_tracking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --folder and --uri to a command, and hands it what they say as `tracking`."""

    @click.option("--folder", default="mlruns", show_default=True, help="The folder of the local store.")
    @click.option("--uri", help="Another store; MLFLOW_TRACKING_URI counts too.")
    @functools.wraps(function)
    def command(*args: Any, folder: str, uri: str | None, **keys: Any) -> Any:
        return function(*args, tracking=Tracking(enabled=True, uri=uri, experiment="", folder=folder), **keys)

    return command
