"""Loads the data set of a config and splits it."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mnist_exp.config.run_config import build
from mnist_exp.data.splits import Splits, split

# Name, size in bytes and time of change in nanoseconds of each file that a data set is read from.
Files = tuple[tuple[str, int, int], ...]


def load_splits(section: DictConfig, cache: bool = False) -> Splits:
    """Loads the data set of the section `dataset` and splits it.

    cache: keep the splits in memory for the next call with the same section, as long as the files are unchanged.
    Raises DataError if the data set cannot be read, or no classifier can be trained on it.
    """
    if not cache:
        return _load(section)
    values = json.dumps(OmegaConf.to_container(section, resolve=True))
    return _load_cached(values, tuple(_files(section)))


def _load(section: DictConfig) -> Splits:
    keys = dict(section)
    settings = {key: keys.pop(key) for key in ("name", "validation", "method", "test", "limit", "seed")}
    return split(build(keys), **settings)


@functools.lru_cache(maxsize=2)
def _load_cached(values: str, files: Files) -> Splits:
    return _load(OmegaConf.create(json.loads(values)))


def _files(section: DictConfig) -> Iterator[tuple[str, int, int]]:
    """Identifies the contents of dataset.path, a file or a folder, without reading them."""
    if not section.get("path"):
        return
    root = Path(section.path)
    for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
        if path.is_file():
            state = path.stat()
            yield str(path), state.st_size, state.st_mtime_ns
