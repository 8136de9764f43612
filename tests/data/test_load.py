import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
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
