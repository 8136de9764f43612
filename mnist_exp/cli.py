"""The command line. Parses the arguments and calls a command, a run or a sweep. Imports no TensorFlow and no MLflow."""

import atexit
import errno
import faulthandler
import gc
import importlib
import os
import sys
import threading
import traceback
from importlib.metadata import version
from types import TracebackType
from typing import NoReturn

from mnist_exp.commands import COMMANDS
from mnist_exp.config.compose import Composed, compose_command_line
from mnist_exp.config.help import register_help
from mnist_exp.errors import ConfigError, Problem, UserError, nearest, sentence
from mnist_exp.secrets import hide

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OBJECTS_BETWEEN_COLLECTIONS = 50_000  # Python's 700 let it search the libraries for garbage again and again


def run_process() -> NoReturn:
    """Runs the command line as a process of its own, and ends the process with the exit status.

    It ends without the destruction of half a million objects of the libraries, which takes Python two seconds.
    """
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    status = main()
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python does, and multiprocessing
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(status)  # Python reports it
    os._exit(status)


def main() -> int:
    """Runs what the command line asks for and returns the exit status."""
    sys.path.insert(0, os.getcwd())  # code of the user's own, for the installed script as for python -m
    sys.excepthook = _print_error
    if not faulthandler.is_enabled():
        faulthandler.enable(file=2)  # a crash of a library's own code says where it was, in the log of a run
    try:
        return _run(sys.argv[1:])
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader has seen enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        remedy = "make room on the disks of the current folder and of temporary files, then resume"
        full = Problem(error.filename or "a file", f"cannot be written ({error.strerror})", remedy=remedy)
        print(f"error: {sentence(full)}", file=sys.stderr)
        return 1


def _print_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an error that nobody handled as Python does, without secrets."""
    print(hide("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"mnist_exp {version('mnist_exp')}")
        return 0
    if arguments and arguments[0] in COMMANDS:
        command = importlib.import_module(f"mnist_exp.commands.{arguments[0]}").command
        command(arguments[1:], f"mnist_exp {arguments[0]}")
        return 0
    if arguments and arguments[0].isidentifier():
        remedy = nearest(arguments[0], COMMANDS) or f"the commands are {', '.join(COMMANDS)}"
        raise ConfigError(Problem(arguments[0], "is neither a command nor KEY=VALUE", remedy=remedy))
    if {"-sc", "--shell-completion"} & set(arguments):
        remedy = 'type eval "$(mnist-exp completion bash)", or zsh or fish instead of bash'
        raise ConfigError(
            Problem(arguments[0], "is Hydra's completion, which does not know the commands", remedy=remedy)
        )
    register_help()
    return max(map(_start, compose_command_line()), default=0)


def _start(composed: Composed) -> int:
    """Starts a sweep or a run and returns its exit status."""
    if composed.launcher is not None:
        from mnist_exp.sweep.main import main as start
    else:
        from mnist_exp.terminal import run_and_show as start
    return start(composed)
