"""Trials in processes of this machine.

On Linux a process is forked from the standard library's fork server, which has imported the libraries. On MNIST it ends
its first epoch 1.8 s after it was asked for and has 370 MB of its own. A spawned process, used elsewhere, needs 5.5 s
and 670 MB.

A process serves many trials: a new one spends about 1 s of processor time on loading the data, on opening the store and
on what the libraries do once. A process that has grown by MAX_GROWTH is replaced, because TensorFlow does not free all
memory of a trial. Both were measured with `benchmarks/local_workers.py` (2 cores).
"""

import atexit
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import psutil

from mnist_exp.sweep.executors.base import THREADS, Preempted, TrialExecutor

Method = Literal["forkserver", "spawn"]

ORPHANED = 17  # exit status of a worker whose parent has ended
MAX_GROWTH = 300 * 2**20  # bytes by which a worker may grow after its first trial: 15 to 20 dense trials
STARTED = "started"  # message of a worker whose trial begins


class Local(TrialExecutor):
    """Runs each call in a process of this machine. A process runs one call at a time, so its death ends no other.

    `submit` replaces a worker that has ended.
    """

    retry_alone, max_deaths = True, 2

    def __init__(self, workers: int, method: Method | None = None, max_growth: int = MAX_GROWTH) -> None:
        self.width = workers
        self._method, self._max_growth = method or default_method(), max_growth
        self._workers: list[_Worker | None] = [None] * workers
        self._busy: dict[Future, int] = {}  # the place of the worker
        self._lock = threading.Lock()
        if self._method == "forkserver":
            start_fork_server()
        atexit.register(self.shutdown, wait=False)  # multiprocessing would wait for the workers for ever

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        with self._lock:
            place = min(set(range(self.width)) - set(self._busy.values()))
            worker = self._workers[place]
            if worker is None or not worker.is_alive():
                environment = worker_environment(place, self.width)
                worker = self._workers[place] = _Worker(self._method, environment, self._max_growth)
            self._busy[future] = place
        threading.Thread(target=self._run, args=(future, worker, (fn, args, kwargs)), daemon=True).start()
        return future

    def kill(self, future: Future) -> None:
        """Ends the worker of this call at once."""
        if worker := self._remove(future, keep=False):
            worker.end()
            future.set_exception(Preempted("the trial was ended"))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        atexit.unregister(self.shutdown)
        for future in list(self._busy):
            if wait:
                future.exception()  # returns when the call has ended
            else:
                self.kill(future)
        for worker in filter(None, self._workers):
            worker.end()
        self._workers = [None] * self.width

    def _run(self, future: Future, worker: "_Worker", call: tuple) -> None:
        """Runs the call and settles the future, unless `kill` does."""
        try:
            answer = worker.run(call, lambda: self._set_running(future))
        except Exception as error:
            answer = Answer(error=error, keep=False)
        if not self._remove(future, answer.keep):
            return
        if not answer.keep:
            worker.end()
        if answer.error is not None:
            future.set_exception(answer.error)
        else:
            future.set_result(answer.result)

    def _set_running(self, future: Future) -> None:
        with self._lock:
            if future in self._busy:
                future.set_running_or_notify_cancel()

    def _remove(self, future: Future, keep: bool) -> "_Worker | None":
        """Frees the place of a call and returns its worker; None if it was freed before. keep: the worker stays."""
        with self._lock:
            place = self._busy.pop(future, None)
            if place is None:
                return None
            worker = self._workers[place]
            if not keep:
                self._workers[place] = None
            return worker


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a worker sends after a call. keep: whether the worker may run another one."""

    result: Any = None
    error: BaseException | None = None
    keep: bool = True


class _Worker:
    """A process that runs one call after the other. It can be ended at any time, also while it starts."""

    def __init__(self, method: Method, environment: Mapping[str, str], max_growth: int) -> None:
        context = get_context(method)
        self._connection, self._remote = context.Pipe()
        self._process = context.Process(  # type: ignore[attr-defined]  # typeshed: only of each kind of context
            target=serve, args=(self._remote, environment, max_growth), name="mnist_exp worker"
        )
        self._lock = threading.Lock()
        self._started = self._ended = False

    def is_alive(self) -> bool:
        return self._started and not self._ended and self._process.is_alive()

    def run(self, call: tuple, on_start: Callable[[], None]) -> Answer:
        """Returns the answer of the process. Raises BrokenExecutor if the process dies."""
        sent = pickle.dumps(call)
        try:
            if not self._started:
                self._start()
            self._connection.send_bytes(sent)
            while (received := self._connection.recv()) == STARTED:
                on_start()
        except (EOFError, OSError) as error:
            raise BrokenExecutor("the worker was killed") from error
        return received

    def end(self) -> None:
        with self._lock:
            self._ended = True
            if self._started:
                self._process.kill()
                self._process.join(5)

    def _start(self) -> None:
        with without_interrupts():
            self._process.start()  # waits for the imports of the fork server
        self._remote.close()  # the process has a copy; with this one open its death would go unnoticed
        with self._lock:
            self._started = True
        if self._ended:
            self.end()


def default_method() -> Method:
    """forkserver on Linux; spawn where a fork is not safe (macOS) or does not exist (Windows)."""
    return "forkserver" if sys.platform == "linux" else "spawn"


def start_fork_server() -> None:
    """Starts the fork server in the background, if it does not run yet. Its imports take up to 10 s."""
    from multiprocessing import forkserver, resource_tracker

    get_context("forkserver").set_forkserver_preload(["mnist_exp.sweep.executors.preload"])
    resource_tracker.ensure_running()  # first, because it unblocks signals
    with without_interrupts():
        forkserver.ensure_running()


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Blocks Ctrl-C for the processes that the block starts, and only until the end of the block for this one."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def worker_environment(place: int, workers: int) -> dict[str, str]:
    """The environment variables of this process with a worker's share of the cores and one GPU, if there are any."""
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    found = {**os.environ, **dict.fromkeys(THREADS, threads)}
    if gpus := visible_gpus():
        found["CUDA_VISIBLE_DEVICES"] = gpus[place] if place < len(gpus) else "-1"
    return found


def visible_gpus() -> list[str]:
    """The NVIDIA devices that this process may use. TensorFlow is not asked, because it would occupy all of them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:  # empty: no GPU, on purpose
        return [device for device in chosen.split(",") if device]
    return [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]


def serve(connection: Connection, environment: Mapping[str, str], max_growth: int) -> None:
    """Runs the calls that arrive, in a worker process, until the other end of the connection is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    problem: ImportError | None = None
    try:
        _prepare(connection, environment)
    except ImportError as raised:
        problem = raised
    first = None
    while True:
        try:
            received = connection.recv_bytes()
        except EOFError:
            return
        try:
            if problem:
                raise problem
            fn, args, kwargs = pickle.loads(received)
            answer = Answer(result=fn(*args, **kwargs))
        except BaseException as raised:  # SystemExit of a user's net, too
            answer = Answer(error=raised)
        size = psutil.Process().memory_info().rss
        first = first or size
        connection.send_bytes(_pickle(replace(answer, keep=size - first < max_growth)))


def _prepare(connection: Connection, environment: Mapping[str, str]) -> None:
    """Imports the libraries, unless the fork server has, and sets the environment variables of the parent."""
    from threadpoolctl import threadpool_limits

    from mnist_exp.sweep.executors import preload
    from mnist_exp.sweep.worker import on_start

    on_start.set(lambda: connection.send(STARTED))
    sys.stdout = sys.stderr  # what a net prints belongs to the log of its trial
    # The parent may have deleted variables since the fork server got them; those that the libraries have added stay.
    for name in preload.PARENT_NAMES - environment.keys():
        os.environ.pop(name, None)
    os.environ.update(environment)
    threadpool_limits(int(environment[THREADS[0]]))  # OpenBLAS and OpenMP read their variable when they were loaded


def _pickle(answer: Answer) -> bytes:
    """The answer as bytes that can be read again. An error keeps its traceback as a note."""
    if answer.error is not None:
        answer.error.add_note("".join(traceback.format_exception(answer.error)))
    try:
        sent = pickle.dumps(answer)
        pickle.loads(sent)
    except Exception as problem:
        text = f"{type(answer.error or problem).__name__}: {answer.error or problem}"
        return pickle.dumps(Answer(error=RuntimeError(text), keep=answer.keep))
    return sent


def _end_with_parent() -> None:
    """Ends this process when its parent has ended, also by SIGKILL."""
    if parent := parent_process():
        parent.join()
    os._exit(ORPHANED)
