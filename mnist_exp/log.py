"""Sends the output of libraries to a file instead of the terminal."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_terminal = 2  # the file descriptor of standard error, also while the output of libraries is hidden


def warn_user(text: str) -> None:
    """Writes a line to standard error, also within `hide_library_output`."""
    with contextlib.suppress(OSError):  # closed
        os.write(_terminal, f"warning: {text}\n".encode())


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
    """Keeps the output of libraries out of the terminal while the block runs. Errors after the block are shown."""
    global _terminal
    stderr, before = os.dup(2), _terminal
    _terminal = stderr if before == 2 else before
    try:
        with tempfile.TemporaryFile() as file:
            yield LibraryOutput(file)
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        _terminal = before
        os.close(stderr)
