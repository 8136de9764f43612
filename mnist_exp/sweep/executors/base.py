"""The base of all executors, and the executor that runs trials in this process."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

# Environment variables that set the number of threads of TensorFlow and of numerical libraries.
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


class Preempted(Exception):
    """The trial was stopped from outside, for example because its worker left. It runs again and did not fail."""


class TrialExecutor(Executor):
    """A `concurrent.futures` executor that runs `width` calls at the same time and can end each of them.

    A future is pending until the trial begins in its worker, and running from then on. It gets BrokenExecutor if the
    worker died, and Preempted if the trial must run again.

    retry_alone: whether a trial whose worker died runs again while no other trial runs.
    max_deaths: a trial is FAILED after this many deaths of its workers.
    """

    width: int
    retry_alone: bool
    max_deaths: int

    def refresh(self) -> None:
        """Updates the list of workers, if it changes by itself. The engine calls it often."""

    def kill(self, future: Future) -> None:
        """Ends the worker of this call."""


class Inline(TrialExecutor):
    """Runs one call after the other in this process."""

    width, retry_alone, max_deaths = 1, True, 2

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
