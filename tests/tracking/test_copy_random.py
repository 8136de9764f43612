"""Fifty random stores are copied, changed and copied again, and compared with MLflow's own client."""

import shutil
from pathlib import Path

import pytest
from random_stores import Writer, describe, new_store

from mnist_exp.tracking.copy import copy_store


# A store takes 3 s on two cores.
@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 50))])
def test_a_random_store_and_its_copies_are_the_same(seed: int, new_database: Path, tmp_path: Path) -> None:
    first, second, third = (new_store(new_database, tmp_path / name) for name in "abc")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    writer = Writer(first, seed, scratch)
    writer.write()
    copy_store(first, second)
    copy_store(second, third)
    assert describe(second) == describe(first)
    assert describe(third) == describe(first)
    writer.change()
    before = describe(first)
    done = copy_store(first, second)
    assert done.left == []
    copy_store(second, third)
    assert describe(second) == before
    assert describe(third) == before
    back = copy_store(third, first)
    assert (back.runs, back.metrics, back.files, back.models, back.versions) == (0, 0, 0, 0, 0)
    assert describe(first) == before
    again = copy_store(first, second)
    assert (again.runs, again.metrics, again.files, again.models, again.versions) == (0, 0, 0, 0, 0)
    shutil.rmtree(tmp_path)
