"""Where the commands that serve pages listen: on this machine alone."""

import socket
from contextlib import suppress

import click

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
