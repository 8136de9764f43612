"""Experiment tracking and hyperparameter sweeps for image classifiers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_exp.experiment import Result

__all__ = ["run"]


def run(*overrides: str, quiet: bool = False) -> "Result":
    """Composes a config from overrides such as "model=cnn", trains, evaluates and records it, as the command line does.

    Raises a UserError (mnist_exp.errors) where a config, data or store cannot be used. quiet: print nothing.
    """
    from mnist_exp.composition import compose
    from mnist_exp.experiment import run as run_experiment
    from mnist_exp.resuming import continued
    from mnist_exp.terminal import Terminal

    cfg, choices = continued(*compose(overrides), overrides)
    if quiet:
        return run_experiment(cfg, choices)
    terminal = Terminal()
    with terminal.cleared():
        result = run_experiment(cfg, choices, terminal)
    terminal.result(result)
    return result
