"""Sends the output of libraries to a file instead of the terminal, and the log lines of this program with it."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LOGGER = logging.getLogger("mnist_exp")
FORMAT = "%(asctime)s mnist_exp %(levelname)s %(message)s"

_terminal = 2  # the file descriptor of standard error, also while the output of libraries is hidden


def warn_user(text: str) -> None:
    """Writes a line to standard error, also within `hide_library_output`."""
    with contextlib.suppress(OSError):  # closed
        os.write(_terminal, f"warning: {text}\n".encode())


def log_line(text: str) -> None:
    """Writes a line, with the time, to the file that the output of libraries goes to."""
    LOGGER.log(logging.INFO, text)


class _ToStandardError(logging.Handler):
    """Writes log lines to file descriptor 2, wherever it leads."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # closed, or no space
            os.write(2, f"{self.format(record)}\n".encode(errors="replace"))


class LibraryOutput:
    """A file in the place of standard error (file descriptor 2): TensorFlow, absl, MLflow and alembic write to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        sys.stderr.flush()
        os.dup2(file.fileno(), 2)

    def move_to(self, path: Path) -> None:
        """Continues in this file, after what was written so far."""
        sys.stderr.flush()
        self._file.seek(0)
        with path.open("ab", buffering=0) as log:
            log.write(self._file.read())
            os.dup2(log.fileno(), 2)


@contextlib.contextmanager
def hide_library_output() -> Iterator[LibraryOutput]:
    """Keeps the output of libraries out of the terminal while the block runs. Errors after the block are shown.

    What this program logs is written to the same file, with the time.
    """
    global _terminal
    stderr, before = os.dup(2), _terminal
    _terminal = stderr if before == 2 else before
    try:
        with tempfile.TemporaryFile() as file, _own_lines():
            output = LibraryOutput(file)
            with _notebook_output_hidden():
                yield output
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        _terminal = before
        os.close(stderr)


@contextlib.contextmanager
def _notebook_output_hidden() -> Iterator[None]:
    """In a notebook sends standard error of Python, which is no file descriptor there, where descriptor 2 leads."""
    if not type(sys.stderr).__module__.startswith("ipykernel"):
        yield
        return
    with open(2, "w", closefd=False, encoding="utf-8") as stream, contextlib.redirect_stderr(stream):
        yield


@contextlib.contextmanager
def _own_lines() -> Iterator[None]:
    """Writes the log lines of this program to standard error. In a block within such a block nothing changes."""
    if LOGGER.handlers:
        yield
        return
    handler = _ToStandardError()
    handler.setFormatter(logging.Formatter(FORMAT))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False  # a library may have a handler of its own for all lines
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(logging.NOTSET)
        LOGGER.propagate = True
