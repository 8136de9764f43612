"""Hydra's way to our sweeps and to config groups outside conf/. Hydra finds this package by the folder's name."""

from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class MnistExpSweeper(Sweeper):
    """Hands the config of a sweep to the task function once; the command line runs the sweep after Hydra returned."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.task, self.composed = task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        HydraConfig.instance().set_config(self.composed)
        return self.task(self.composed)


class MnistExpSearchPath(SearchPathPlugin):
    """Lets this program, and no other that uses Hydra, find the user's configs: those of the current folder.

    They lie in its folder conf/, or in folders with the names of config groups, such as experiment/ and sweeps/.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from mnist_exp.config.compose import CONF, ROOT, own_folders

        if not any(element.path.removeprefix("file://") == str(CONF) for element in search_path.get_path()):
            return
        for folder in dict.fromkeys((ROOT, *own_folders())):
            search_path.append("mnist_exp", f"{GroupsSource.scheme()}://{folder}")


class GroupsSource(FileConfigSource):
    """A folder in which only config groups are read, whatever else lies there.

    Hydra's own source walks through every folder below it before it prints help: minutes for a checkout with a virtual
    environment in it, or for a working folder full of images.
    """

    @staticmethod
    def scheme() -> str:
        return "mnist_exp"

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        from mnist_exp.config.compose import GROUPS

        if config_path:
            return [] if results_filter is ObjectType.GROUP else super().list(config_path, ObjectType.CONFIG)
        return [name for name in super().list("", ObjectType.GROUP) if name in GROUPS]
