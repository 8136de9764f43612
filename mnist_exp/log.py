"""Sends the output of libraries to a file."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class Chatter:
    """Standard error, file descriptor 2, in a file: what TensorFlow, absl, MLflow and alembic say is for the log."""

    def __init__(self) -> None:
        sys.stderr.flush()
        self._stderr = os.dup(2)
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # lives until end()
        os.dup2(self._file.fileno(), 2)

    def move_to(self, path: Path) -> None:
        """Goes on in this file, which begins with what was said so far."""
        sys.stderr.flush()
        self._file.seek(0)
        said = self._file.read()
        self._file.close()
        self._file = path.open("ab")
        self._file.write(said)
        self._file.flush()
        os.dup2(self._file.fileno(), 2)

    def end(self) -> None:
        """Gives standard error back."""
        sys.stderr.flush()
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        self._file.close()


@contextlib.contextmanager
def chatter_in_log() -> Iterator[Chatter]:
    """Keeps the libraries' chatter out of the terminal while the block runs; errors after it are seen again."""
    chatter = Chatter()
    try:
        yield chatter
    finally:
        chatter.end()
