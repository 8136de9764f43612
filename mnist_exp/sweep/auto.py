"""What sweep.sampler=auto and sweep.pruner=auto choose, and why. The reasons are measured, see docs/benchmarks.md."""

from typing import Literal

from mnist_exp.config.check import is_known_every_epoch
from mnist_exp.config.schema import Sweep
from mnist_exp.sweep.space import Space

LEAST_EPOCHS = 3  # of a training whose first epochs tell enough to end it

Pruner = Literal["auto", "off", "median", "asha", "hyperband"]


def choose_algorithm(settings: Sweep, space: Space) -> str:
    """Returns grid, random, tpe or hyperband."""
    if settings.hyperband:
        return "hyperband"
    sampler = settings.sampler if settings.algorithm is None else settings.algorithm
    if sampler != "auto":
        return sampler
    unlimited = settings.max_trials is None and settings.max_epochs is None
    return "grid" if space.finite and unlimited else "tpe"


def choose_pruner(settings: Sweep, algorithm: str, epochs: int) -> tuple[Pruner, str]:
    """Returns the pruner and why it was chosen; no reason if the settings name it. epochs: of the longest training."""
    if settings.pruner != "auto":
        return settings.pruner, ""
    if settings.pruning is not None or algorithm == "hyperband":  # the old keys choose
        return "off", ""
    if algorithm == "grid":
        return "off", "off, because a grid compares all of its trials"
    if not is_known_every_epoch(settings.objective):
        return "off", f"off, because {settings.objective} is known at the end of a training only"
    if epochs < LEAST_EPOCHS:
        return "off", f"off, because trainings of {epochs} epochs are too short to be ended early"
    return "asha", "asha: in trainings of so many epochs it found the best nets with the fewest"
