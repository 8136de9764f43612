"""Draws the figures of a run with a second process."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from mnist_exp.data.splits import Splits
from mnist_exp.evaluation.run_files import RunResults

PATIENCE = 60  # seconds until a process that draws is given up


class FigureProcess:
    """Draws the figures of one run: part of them in a process, which the context manager ends with its block.

    The process is forked, and so has the images. It loads matplotlib while this one loads TensorFlow. A fork would copy
    the locks of other threads, such as those of TensorFlow and of a notebook. Where there are any, or no second core,
    or where the process is not ready in time or fails, this one draws everything.
    """

    def __init__(self, splits: Splits) -> None:
        self._drawn: tuple[Path, RunResults] | None = None
        self._process: multiprocessing.context.ForkProcess | None = None
        alone = threading.active_count() == 1 and "tensorflow" not in sys.modules
        if alone and sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1:
            context = multiprocessing.get_context("fork")
            self._connection, other = context.Pipe()
            self._process = context.Process(target=_draw, args=(other, self._connection, splits), daemon=True)
            self._process.start()
            other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def begin(self, folder: Path, run: RunResults) -> None:
        """Begins to draw all figures of the run below the folder."""
        self._drawn = folder, run
        with contextlib.suppress(OSError, EOFError):  # it has ended
            if self._process and self._connection.poll():
                self._connection.recv()
                self._connection.send((folder, vars(run) | {"splits": None}))
                return
        self._end()

    def finish(self) -> None:
        """Draws the others, and waits for the process."""
        if self._drawn is None:
            return
        from mnist_exp.evaluation.figures import draw_figures

        draw_figures(*self._drawn, lambda place: not _is_in_process(place))
        if self._process:
            self._process.join(PATIENCE)
            if self._process.exitcode == 0:
                return
        draw_figures(*self._drawn, _is_in_process)

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


def _is_in_process(place: int) -> bool:
    """Whether the process draws a figure: two of three, since the run has its model to store meanwhile."""
    return place % 3 > 0


def _draw(connection: Connection, of_parent: Connection, splits: Splits) -> None:
    """Loads matplotlib, says so, waits for a run and draws its part of the figures. Ends with the parent."""
    of_parent.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent answers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from mnist_exp.evaluation.figures import draw_figures

    with contextlib.suppress(OSError, EOFError):
        connection.send("ready")
        folder, results = connection.recv()
        draw_figures(folder, RunResults(**results | {"splits": splits}), _is_in_process)
