"""python -m mnist_exp sweep: lists and shows sweeps, and steers them, from any machine that reaches their store."""

import click

from mnist_exp.commands.sweep.progress import read_progress, show_command, status_command
from mnist_exp.commands.sweep.remove import rm_command
from mnist_exp.commands.sweep.steer import COMMANDS
from mnist_exp.commands.sweep.sweeps import list_command

__all__ = ["command", "read_progress"]


@click.group(help=__doc__)
def command() -> None:
    """Its sub-commands."""


for one in (list_command, status_command, show_command, *COMMANDS, rm_command):
    command.add_command(one)
