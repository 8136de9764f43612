"""The door: Hydra for runs, and a few named commands. Parses and delegates; nothing heavy loads here."""

import importlib
import os
import sys
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mnist_exp.config import help  # noqa: F401  # registers the choices for --help
from mnist_exp.config.compose import CONF, FAILURES, chosen, explain
from mnist_exp.errors import UserError
from mnist_exp.signals import Terminated, terminable

COMMANDS = ("compare", "demo", "export", "predict", "promote", "reproduce", "store", "sweep", "ui")


def main() -> int:
    """Runs what the command line asks for; returns the exit status."""
    sys.path.insert(0, os.getcwd())  # code of the user's own, for the installed script as for python -m
    try:
        if sys.argv[1:2] and sys.argv[1] in COMMANDS:
            importlib.import_module(f"mnist_exp.commands.{sys.argv[1]}").command(
                sys.argv[2:], f"mnist_exp {sys.argv[1]}"
            )
        else:
            _compose_and_run()
    except UserError as error:
        return _refuse(str(error))
    except BrokenPipeError:  # the reader has seen enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _compose_and_run() -> None:
    full = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors to us, to be said in our words
    HydraConfig.instance().cfg = None  # of an earlier call in this process
    try:
        _task()
    except (*FAILURES, ValueError) as error:  # a group set to null is a bare ValueError of Hydra's
        if full or HydraConfig.initialized():  # composed already: not the user's overrides
            raise
        raise UserError(explain(error)) from error


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def _task(cfg: DictConfig) -> Any:
    from mnist_exp.config.resume import continued
    from mnist_exp.experiment import run
    from mnist_exp.log import chatter_in_log
    from mnist_exp.terminal import Terminal

    hydra_config = HydraConfig.get()
    terminal = Terminal()
    try:
        with terminable(), chatter_in_log() as terminal.chatter, terminal.cleared():
            result = run(*continued(cfg, chosen(hydra_config), hydra_config.overrides.task), terminal)
    except UserError as error:
        raise SystemExit(_refuse(str(error))) from error  # past Hydra, which would announce the error once more
    except (KeyboardInterrupt, Terminated) as stop:
        raise SystemExit(terminal.stopped(143 if isinstance(stop, Terminated) else 130)) from stop
    except FAILURES as error:  # not the user's overrides, which were composed by now
        raise RuntimeError("the run used its config wrongly") from error
    terminal.result(result)
    return result.metrics["val/accuracy"]


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1
