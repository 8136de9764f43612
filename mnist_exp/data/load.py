"""Loads the data set of a config and splits it."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import Split
from mnist_exp.data.splits import Splits, split

# Name, size in bytes and time of change in nanoseconds of each file that a data set is read from.
Files = tuple[tuple[str, int, int], ...]


def load_splits(config: RunConfig, cache: bool = False) -> Splits:
    """Loads the data set of a config and splits it.

    cache: keep the splits in memory for the next call with the same section, as long as the files are unchanged.
    Raises DataError if the data set cannot be read, or no classifier can be trained on it.
    """
    if not cache:
        return split(config.build("dataset"), config.settings(Split))
    section = config.values["dataset"]
    return _load_cached(json.dumps(section), tuple(_files(section.get("path"))))


@functools.lru_cache(maxsize=2)
def _load_cached(section: str, files: Files) -> Splits:
    return load_splits(RunConfig({"dataset": json.loads(section)}, {}))


def _files(path: str | None) -> Iterator[tuple[str, int, int]]:
    """Identifies the contents of dataset.path, a file or a folder, without reading them."""
    if not path:
        return
    root = Path(path)
    for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
        if file.is_file():
            state = file.stat()
            yield str(file), state.st_size, state.st_mtime_ns
