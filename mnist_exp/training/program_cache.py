"""Programs that XLA has compiled, on disk: the next process, sweep or run does not compile them again.

TensorFlow reads and writes such a folder itself, and knows a program by its whole content. But its folder grows without
an end, and a damaged file ends the training. So each process gives it a folder of its own, and this module moves
programs between that and the shared one, in the cache folder of the user: with a checksum, written whole, those not
used for the longest time removed. Whatever goes wrong there costs a compilation, never a run.
"""

import atexit
import contextlib
import functools
import hashlib
import os
import platform
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import platformdirs

from mnist_exp.log import hide_library_output

LIMIT = 500 * 2**20  # bytes of the shared folder: about 1,000 programs
FLAGS = "TF_XLA_FLAGS"
DIRECTORY = "--tf_xla_persistent_cache_directory="
DEVICES = "--tf_xla_persistent_cache_device_types=CPU"
PRIVATE = "process-"  # start of the names of the folders that belong to one process
STALE = 24 * 3600  # seconds after which such a folder belongs to a process that has ended


class ProgramCache:
    """The programs of this kind of machine. folder: the shared one. private: that of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / _machine()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.private = Path(tempfile.mkdtemp(prefix=PRIVATE, dir=self.folder))
        atexit.register(shutil.rmtree, self.private, ignore_errors=True)

    @contextmanager
    def compiling(self, identity: str) -> Iterator[None]:
        """Gives TensorFlow what is known of a program that it compiles in the block, and keeps what it compiles."""
        self._clear()
        entry = self.folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.zip"
        known = self._load(entry)
        try:
            # XLA warns of each program that it loads, because it does not know hints such as prefer-no-gather again.
            with hide_library_output() if known else nullcontext():
                yield
        except Exception:
            if known:  # TensorFlow refuses it
                entry.unlink(missing_ok=True)
            raise
        finally:
            compiled = sorted(self.private.glob("*"))
            if {file.name for file in compiled} - known:
                self._save(entry, compiled)
            self._clear()

    def _load(self, entry: Path) -> set[str]:
        """Puts the files of an entry into the private folder and returns their names. A damaged entry is removed."""
        try:
            with zipfile.ZipFile(entry) as files:
                files.extractall(self.private)
                names = set(files.namelist())
            os.utime(entry)
        except FileNotFoundError:
            return set()
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError):
            self._clear()
            with contextlib.suppress(OSError):
                entry.unlink(missing_ok=True)
            return set()
        return names

    def _clear(self) -> None:
        for file in self.private.glob("*"):
            file.unlink(missing_ok=True)

    def _save(self, entry: Path, compiled: list[Path]) -> None:
        temporary = self.private / "entry.new"
        with contextlib.suppress(OSError):  # no space, or no permission
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as files:
                for file in compiled:
                    files.write(file, file.name)
            temporary.replace(entry)
            self._trim()

    def _trim(self) -> None:
        """Removes the entries that were not used for the longest time, and what ended processes have left."""
        entries = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process removed it
                state = path.stat()
                if path.name.startswith(PRIVATE):
                    if path != self.private and time.time() - state.st_mtime > STALE:
                        shutil.rmtree(path, ignore_errors=True)
                else:
                    entries.append(path)
        remove_oldest(entries, LIMIT)


def remove_oldest(files: Iterable[Path], limit: int) -> None:
    """Removes the files that were not used for the longest time, until the others have at most `limit` bytes."""
    states = []
    for path in files:
        with contextlib.suppress(OSError):  # another process removed it
            state = path.stat()
            states.append((state.st_mtime, state.st_size, path))
    excess = sum(size for _, size, _ in states) - limit
    for _, size, path in sorted(states):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size


@functools.cache
def open_cache() -> ProgramCache | None:
    """Tells TensorFlow to use a cache, and returns it; None if there can be none.

    Must be called before TensorFlow runs its first operation, at which it reads its flags. A folder that the user has
    named in TF_XLA_FLAGS stays the one that is used.
    """
    given = _user_flags()
    if any(flag.startswith(DIRECTORY) for flag in given):
        return None
    try:
        cache = ProgramCache(Path(platformdirs.user_cache_dir("mnist_exp")) / "programs")
    except OSError:
        return None
    os.environ[FLAGS] = " ".join([*given, f"{DIRECTORY}{cache.private}", DEVICES])
    return cache


def forget_inherited() -> None:
    """Makes TensorFlow use no cache of the process that has started this one."""
    if FLAGS in os.environ:
        os.environ[FLAGS] = " ".join(_user_flags())


def _user_flags() -> list[str]:
    """The flags in TF_XLA_FLAGS that `open_cache` has not put there, in this process or the one that started it."""
    flags = os.environ.get(FLAGS, "").split()
    ours = [flag for flag in flags if flag.startswith(DIRECTORY) and f"{os.sep}{PRIVATE}" in flag]
    return [flag for flag in flags if flag not in (*ours, *([DEVICES] if ours else []))]


def _machine() -> str:
    """A name for what a compiled program depends on beside itself: instructions of the processor, versions, threads."""
    import keras
    import tensorflow as tf

    facts = [platform.machine(), platform.processor(), tf.__version__, keras.__version__, os.environ.get("XLA_FLAGS")]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        facts += sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts += [str(cores), os.environ.get("TF_NUM_INTRAOP_THREADS"), os.environ.get("OMP_NUM_THREADS")]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
