"""The command line in processes that begin at once: forked from a server that has imported the libraries.

`start` and `run` stand for `python -m mnist_exp ARGUMENTS`, started by `subprocess.Popen` and `subprocess.run`. The
process has a pid of its own, takes real signals and ends with a real exit status. It begins within 0.1 s, because it
does not have to import TensorFlow and MLflow, which takes 10 s. The server itself runs no operation of TensorFlow's:
the first one starts threads, and a process with threads must not be forked.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

import mnist_exp

TESTS = Path(__file__).parent
# What a run, a sweep and a command import, so that no process has to.
PRELOADED = [
    "tensorflow", "keras", "mlflow.keras", "mlflow.store.tracking.sqlalchemy_store", "sklearn.datasets",
    "sklearn.metrics", "scipy.stats", "matplotlib.pyplot", "keras_tuner", "optuna", "jinja2", "rich.progress",
    "mnist_exp.cli", "mnist_exp.experiment",
]  # fmt: skip
CONTEXT = multiprocessing.get_context("forkserver")
Preparation = Callable[[], object]


class Process:
    """A process that was started. Its standard output and standard error are files, which can be read at any time."""

    folder: Path  # where the files are; the fixture of the session sets it
    surroundings: set[str] = set()  # names of the environment variables that the server was started with  # noqa: RUF012
    alive: list["Process"] = []  # noqa: RUF012
    _numbers = count()

    def __init__(
        self,
        target: Callable[..., object],
        arguments: tuple[object, ...],
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        stdin: Path | None = None,
        terminal: str | None = None,
    ) -> None:
        start_server()
        number = next(self._numbers)
        self.out, self.err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        self.out.touch()  # can be read before the process has begun
        self.err.touch()
        streams = (terminal,) * 3 if terminal else (str(stdin or os.devnull), str(self.out), str(self.err))
        given = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}  # which main() sets
        given |= environment or {}
        removed = self.surroundings - given.keys()
        self._process = CONTEXT.Process(target=_begin, args=(target, arguments, str(cwd), given, removed, streams))
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid
        self.alive.append(self)

    @property
    def returncode(self) -> int | None:
        """The exit status, negative if a signal ended the process, None while it runs."""
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        return self.out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self.err.read_text(encoding="utf-8")

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(["process", str(self.pid)], timeout, self.stdout, self.stderr)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait_for(self, condition: Callable[[], object], seconds: float = 300) -> None:
        """Waits until this is so. Fails if the process ends before."""
        until = time.monotonic() + seconds
        while not condition():
            assert self.poll() is None, f"the process ended with {self.returncode}: {self.stdout}{self.stderr}"
            assert time.monotonic() < until, f"it was not so within {seconds:g} s: {self.stdout}{self.stderr}"
            time.sleep(0.05)


def start(
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    stdin: Path | None = None,
    terminal: str | None = None,
    prepare: Preparation | None = None,
) -> Process:
    """Starts `python -m mnist_exp ARGUMENTS` in the folder `cwd`.

    environment: added to that of this process. stdin: the file that is its standard input. terminal: the device that is
    its standard input, output and error. prepare: a function that the process calls first, for example `die_at(...)`.
    """
    return Process(_command_line, (arguments, prepare), cwd, environment, stdin, terminal)


def run(*arguments: str, cwd: Path, timeout: float = 300, **keys: Any) -> Process:
    """Starts `python -m mnist_exp ARGUMENTS` and waits for its end. keys: as for `start`."""
    process = start(*arguments, cwd=cwd, **keys)
    process.wait(timeout)
    return process


def call(function: Callable[..., object], *arguments: object, cwd: Path, **keys: Any) -> Process:
    """Starts a process that calls a function of a test module. Its exit status is 1 if the function raises an error."""
    return Process(function, arguments, cwd, **keys)


def start_server() -> None:
    """Starts the server, unless it runs. It imports the libraries while tests go on."""
    if not Process.surroundings:
        Process.surroundings = set(os.environ)
    CONTEXT.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()


def stop_server() -> None:
    """Ends the server: a process has only one, and the next may import something else."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def kill_all() -> None:
    """Kills what a failed test has left."""
    for process in Process.alive:
        process.kill()
    Process.alive.clear()


class at_call:
    """Does something at the nth call of a function, before or after it: `at_call(MlflowClient, "log_batch", 3, die)`.

    Can be given to `start` as `prepare`. owner: a class or a module.
    """

    def __init__(self, owner: Any, name: str, nth: int, act: Callable[[], object], *, before: bool = True) -> None:
        self.owner, self.name, self.nth, self.act, self.before = owner, name, nth, act, before

    def __call__(self) -> None:
        works, calls = getattr(self.owner, self.name), count(1)

        def replaced(*args: Any, **keys: Any) -> Any:
            now = self.counts(*args, **keys) and next(calls) == self.nth
            if now and self.before:
                self.act()
            answer = works(*args, **keys)
            if now and not self.before:
                self.act()
            return answer

        setattr(self.owner, self.name, replaced)

    def counts(self, *args: Any, **keys: Any) -> bool:
        """Whether a call with these arguments is one to count."""
        return True


class at_metric(at_call):
    """Does something when a metric is logged for the nth time: `at_metric("train/loss", 3, die)` means epoch 3.

    The epochs of all trials of a process are counted together.
    """

    def __init__(self, metric: str, nth: int, act: Callable[[], object], *, before: bool = True) -> None:
        from mlflow import MlflowClient

        super().__init__(MlflowClient, "log_batch", nth, act, before=before)
        self.metric = metric

    def counts(self, *args: Any, metrics: Sequence[Any] = (), **keys: Any) -> bool:
        return any(metric.key == self.metric for metric in [*metrics, *(args[2] if len(args) > 2 else ())])


def die() -> None:
    """Ends this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def render_one_pixel(patch: Callable[[type, str, Callable[..., object]], None] = setattr) -> None:
    """Replaces what renders figures in this process."""

    def save(figure: Figure, target: Any, **options: Any) -> None:
        Image.new("L", (1, 1)).save(target, "png")

    patch(Figure, "savefig", save)
    patch(ConstrainedLayoutEngine, "execute", lambda engine, figure: None)


def interrupt() -> None:
    """Sends this process what Ctrl-C sends."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_twice() -> None:
    interrupt()
    interrupt()


def _command_line(arguments: tuple[str, ...], prepare: Preparation | None) -> int:
    sys.argv = [str(Path(mnist_exp.__file__).with_name("__main__.py")), *arguments]
    render_one_pixel()
    if prepare:
        prepare()
    from mnist_exp.cli import main

    return main()


def _begin(
    target: Callable[..., object],
    arguments: tuple[object, ...],
    cwd: str,
    environment: dict[str, str],
    removed: set[str],
    streams: tuple[str, str, str],
) -> None:
    """The whole life of a process, as the interpreter would lead it."""
    os.chdir(cwd)
    for name in removed:
        os.environ.pop(name, None)
    os.environ.update(environment)
    tempfile.tempdir = None  # that of the server; TMPDIR may be another one now
    sys.path[:] = [path for path in sys.path if not Path(path).is_relative_to(TESTS)]
    for number, path in enumerate(streams):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started pytest deaf to it
    try:
        status = target(*arguments)
    except SystemExit as end:
        status = end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    atexit._run_exitfuncs()
    if status == -signal.SIGINT:
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    sys.exit(status)  # type: ignore[arg-type]
