"""Signals that end a run, as exceptions."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130  # exit status after Ctrl-C
# SIGHUP: the terminal was closed. Windows does not have it.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(BaseException):
    """The process received SIGTERM or SIGHUP. number: that of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP raise Terminated while the block runs, so that a run can be recorded as KILLED.

    A signal that is ignored stays ignored, as SIGHUP below `nohup`.
    """

    def terminate(number: int, frame: Any) -> None:
        raise Terminated(number)

    before = {number: signal.getsignal(number) for number in ENDING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def exit_status(stop: BaseException) -> int:
    """Returns the exit status of a process that was stopped by this exception."""
    return 128 + stop.number if isinstance(stop, Terminated) else INTERRUPTED
