"""Signals that end a run, as exceptions.

A signal raises its exception between any two instructions of Python. Two kinds of place do not bear that. In a
destructor or a callback of a weak reference Python drops the exception and goes on as if nothing had been; so it is
kept, and the loops that take long call `raise_received` in every turn. And a library that is interrupted in the middle
of its own bookkeeping may keep a lock for ever; there, `deferred` lets the signal wait.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130  # exit status after Ctrl-C
# SIGHUP: the terminal was closed. Windows does not have it.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

_received: list[int] = []  # signals of the block of `raise_on_signals` that is running
_deferred: list[list[int]] = []  # for each block of `deferred` that is running, the signals that wait for its end


class Terminated(BaseException):
    """The process received SIGTERM or SIGHUP. number: that of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


Stop = KeyboardInterrupt | Terminated


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Makes signals raise an exception while the block runs, so that a run can be recorded as KILLED.

    SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP raise Terminated. A signal that is ignored stays ignored, as
    SIGHUP below `nohup`.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, receive)
    report = sys.unraisablehook
    sys.unraisablehook = lambda dropped: None if issubclass(dropped.exc_type, Stop) else report(dropped)
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        _received.clear()


def receive(number: int, frame: Any = None) -> None:
    """Raises the exception of a signal, now and at the next call of `raise_received`. A handler of signals."""
    _received.append(number)
    if _deferred and not _deferred[-1]:
        _deferred[-1].append(number)
    else:
        raise_received()


def raise_received() -> None:
    """Raises the exception of a signal that the block of `raise_on_signals` has received, if it has."""
    if _received:
        number = _received[-1]
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


@contextmanager
def deferred() -> Iterator[None]:
    """Lets a signal wait for the end of the block. A second one does not wait."""
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield
        return
    waiting = _deferred[-1] if _deferred else []
    _deferred.append(waiting)
    try:
        yield
    finally:
        _deferred.pop()
        if waiting and not _deferred:
            raise_received()


def exit_status(stop: BaseException) -> int:
    """Returns the exit status of a process that was stopped by this exception."""
    return 128 + stop.number if isinstance(stop, Terminated) else INTERRUPTED
