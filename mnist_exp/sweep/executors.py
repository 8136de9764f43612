"""Where trials run: as `concurrent.futures` executors with a number of slots."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_exp.config import schema as settings
from mnist_exp.errors import ConfigError

if TYPE_CHECKING:
    from mnist_exp.sweep.cluster import Cluster

GONE = 17  # exit status of a worker whose parent is gone
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


class Inline(Executor):
    """One call after another, in this process."""

    width, alone, tries = 1, True, 2

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def look(self) -> None:
        """There are no workers."""

    def kill(self, future: Future) -> None:
        """Nothing runs beside this process."""


class Local(Executor):
    """Processes of this machine that stay warm, each alone in a pool of its own.

    So a worker that is killed takes no other trial with it, and there is no doubt whose it was.
    """

    alone, tries = True, 2

    def __init__(self, workers: int) -> None:
        self.width = workers
        self._pools: list[Any] = [self._pool(slot) for slot in range(workers)]
        self._busy: dict[Future, int] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        slot = min(set(range(self.width)) - set(self._busy.values()))
        try:
            future = self._pools[slot].submit(fn, *args, **kwargs)
        except BrokenExecutor:  # its worker was killed while it was idle, or with its last trial
            self._pools[slot] = self._pool(slot)
            future = self._pools[slot].submit(fn, *args, **kwargs)
        self._busy[future] = slot
        future.add_done_callback(lambda done: self._busy.pop(done, None))
        return future

    def look(self) -> None:
        """Workers are replaced when they are needed."""

    def kill(self, future: Future) -> None:
        """Ends the worker of this trial at once."""
        if (slot := self._busy.get(future)) is not None:
            self._pools[slot].shutdown(wait=False, kill_workers=True)
            self._pools[slot] = self._pool(slot)
            self._busy.pop(future, None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for pool in self._pools:
            pool.shutdown(wait=wait, kill_workers=not wait)

    def _pool(self, slot: int) -> Any:
        from loky import ProcessPoolExecutor

        return ProcessPoolExecutor(
            max_workers=1, initializer=_begin_worker, initargs=(os.getpid(), self.width, slot), timeout=None
        )


def executor(keys: settings.Executor, uri: str) -> "Inline | Local | Cluster":
    """The one these keys ask for, with workers that can write to the store at `uri`. Raises ConfigError."""
    if keys.kind == "inline":
        return Inline()
    if keys.kind == "local":
        return Local(keys.workers or os.cpu_count() or 1)
    try:
        import dask_jobqueue  # noqa: F401
        import distributed  # noqa: F401
    except ImportError as error:
        raise ConfigError(f'executor={keys.kind} needs Dask: pip install "mnist_exp[cluster]"') from error
    from mnist_exp.sweep import cluster

    shared = not uri.startswith("sqlite")
    return cluster.Cluster(keys, shared=shared) if keys.kind == "dask" else cluster.slurm(keys, shared=shared)


def width(keys: settings.Executor) -> int:
    """How many trials run at once, before any worker is started; 1 where only the cluster knows."""
    return keys.workers or (os.cpu_count() or 1 if keys.kind == "local" else 1)


def _begin_worker(parent: int, workers: int, slot: int) -> None:
    """Before anything heavy loads: a share of the cores, Ctrl-C left to the parent, an end with the parent's end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    for name in THREADS:
        os.environ[name] = threads
    if gpus := _gpus():
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[slot] if slot < len(gpus) else "-1"  # one worker each
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _gpus() -> list[str]:
    """The NVIDIA devices this process may use, found without TensorFlow, which would take them all."""
    if chosen := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return chosen.split(",")
    return [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]


def _end_with(parent: int) -> None:
    import psutil

    watched = psutil.Process(parent)
    while watched.is_running() and watched.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.5)
    os._exit(GONE)
