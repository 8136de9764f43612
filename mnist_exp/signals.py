"""Signals that end a run, as exceptions."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED, TERMINATED = 130, 143  # exit status after Ctrl-C, and after SIGTERM


class Terminated(BaseException):
    """The process received SIGTERM."""


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM raise Terminated while the block runs, so that a run can be recorded as KILLED."""

    def terminate(signum: int, frame: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_status(stop: BaseException) -> int:
    """Returns the exit status of a process that was stopped by this exception."""
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
