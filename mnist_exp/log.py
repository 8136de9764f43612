"""Sends the output of libraries to a file instead of the terminal."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class LibraryOutput:
    """Redirects standard error (file descriptor 2) to a file: TensorFlow, absl, MLflow and alembic write to it."""

    def __init__(self) -> None:
        sys.stderr.flush()
        self._stderr = os.dup(2)
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # open until end()
        os.dup2(self._file.fileno(), 2)

    def move_to(self, path: Path) -> None:
        """Continues in this file, after what was written so far."""
        sys.stderr.flush()
        self._file.seek(0)
        written = self._file.read()
        self._file.close()
        self._file = path.open("ab")
        self._file.write(written)
        self._file.flush()
        os.dup2(self._file.fileno(), 2)

    def end(self) -> None:
        """Restores standard error."""
        sys.stderr.flush()
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        self._file.close()


@contextlib.contextmanager
def hide_library_output() -> Iterator[LibraryOutput]:
    """Keeps the output of libraries out of the terminal while the block runs. Errors after the block are shown."""
    output = LibraryOutput()
    try:
        yield output
    finally:
        output.end()
