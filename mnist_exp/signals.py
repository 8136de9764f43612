"""Ends that come from outside."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(BaseException):
    """SIGTERM arrived."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Terminated while the block runs, so that a run can be recorded as KILLED."""

    def terminate(signum: int, frame: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
