"""Loads the data set of a config and splits it."""

import functools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import Split
from mnist_exp.data.arrays import to_dataset
from mnist_exp.data.splits import Splits, split

# Path, size in bytes, times of change of content and of the entry in nanoseconds, and inode of a file.
State = tuple[str, int, int, int, int]


def load_splits(config: RunConfig, cache: bool = False, data: Any = None) -> Splits:
    """Loads the data set of a config and splits it.

    cache: keep the splits in memory for the next call with the same section, as long as the files are unchanged. data:
    takes the place of what the config's function returns: whatever `to_dataset` reads. Raises DataError if the data set
    cannot be read, or no classifier can be trained on it.
    """
    if not cache:
        made = config.build("dataset") if data is None else data
        return split(to_dataset(made, str(config.values["dataset"]["name"])), config.settings(Split))
    section = config.values["dataset"]
    return _load_cached(json.dumps(section), tuple(_states(section)))


@functools.lru_cache(maxsize=2)
def _load_cached(section: str, states: tuple[State, ...]) -> Splits:
    return load_splits(RunConfig({"dataset": json.loads(section)}, {}))


def _states(section: Mapping[str, Any]) -> Iterator[State]:
    """Identifies the contents of the files and folders that a section names, without reading them.

    A file may be replaced by one of the same size and time, as `cp -p` and `rsync -t` do: its inode differs, or the
    time of its entry. The keys of a user's own data set may have any name.
    """
    for value in section.values():
        root = Path(value).expanduser() if isinstance(value, str) else None
        if root is None or not os.path.exists(root):
            continue
        for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if file.is_file():
                state = file.stat()
                times = state.st_mtime_ns, state.st_ctime_ns
                yield str(file.absolute()), state.st_size, *times, state.st_ino
