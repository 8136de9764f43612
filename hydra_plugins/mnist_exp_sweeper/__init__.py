"""Hydra's way to our sweeps: `-m` hands its arguments to mnist_exp.sweep."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class MnistExpSweeper(Sweeper):
    """Hydra looks for it here because of the folder's name."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.composed = config

    def sweep(self, arguments: list[str]) -> Any:
        from mnist_exp.sweep.main import sweep

        return sweep(self.composed, arguments)
