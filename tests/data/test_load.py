import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.data import load
from mnist_exp.data.load import load_splits
from mnist_exp.data.splits import Splits

Arrays = dict[str, np.ndarray]


def cached(*overrides: str) -> Splits:
    return load_splits(check(compose(overrides)), cache=True)


def test_a_trial_with_the_same_data_loads_it_once(save: Callable[[Arrays], str], arrays: Arrays) -> None:
    overrides = ["dataset=npz", f"dataset.path={save(arrays)}"]
    first = cached(*overrides)
    assert cached(*overrides, "model=cnn") is first
    assert cached(*overrides, "dataset.validation=3") is not first
    assert load_splits(check(compose(overrides))) is not first


def test_a_changed_file_is_loaded_again(save: Callable[[Arrays], str], arrays: Arrays) -> None:
    overrides = ["dataset=npz", f"dataset.path={save(arrays)}"]
    before = cached(*overrides)
    arrays["x_train"][0, 0, 0] ^= 1
    path = Path(save(arrays))  # as long as the one before
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert cached(*overrides).digest != before.digest


@pytest.mark.parametrize("change", ["added", "removed", "replaced"])
def test_a_changed_folder_is_loaded_again(tmp_path: Path, change: str) -> None:
    for number in range(20):
        path = tmp_path / "cat" / f"{number}.png" if number % 2 else tmp_path / "dog" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), number).save(path)
    overrides = ["dataset=folder", f"dataset.path={tmp_path}"]
    before = cached(*overrides)
    assert cached(*overrides) is before
    if change == "removed":
        path.unlink()
    else:
        Image.new("L", (4, 4), 200).save(path.with_name("new.png") if change == "added" else path)
    os.utime(path.parent, ns=(0, 0))
    assert cached(*overrides).digest != before.digest


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_loaded_again(
    save: Callable[[Arrays], str], arrays: Arrays, tmp_path: Path
) -> None:
    path = Path(save(arrays))
    overrides = ["dataset=npz", f"dataset.path={path}"]
    before, state = cached(*overrides), path.stat()
    kept = path.rename(tmp_path / "kept.npz")
    arrays["x_train"][0, 0, 0] ^= 1
    save(arrays)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    changed = cached(*overrides)
    assert changed.digest != before.digest
    kept.replace(path)  # the data are put back
    assert cached(*overrides).digest == before.digest


def test_a_file_that_another_key_names_is_watched_too(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).touch()
    section = {"_target_": "mine.load", "images": str(tmp_path / "one"), "labels": str(tmp_path / "two"), "size": 3}
    before = list(load._states(section))
    (tmp_path / "two").write_text("more")
    assert list(load._states(section)) != before
