"""The choice of an executor, and the executor that needs no process."""

import os

from mnist_exp.config.schema import Executor
from mnist_exp.sweep.executors import create_executor
from mnist_exp.sweep.executors.base import Inline


def test_the_keys_choose_the_executor():
    assert isinstance(create_executor(Executor(kind="inline", workers=1), "sqlite:///x"), Inline)
    with create_executor(Executor(kind="local", workers=None), "sqlite:///x") as found:
        assert found.width == os.cpu_count()


def test_inline_runs_here_and_hands_over_what_is_raised():
    assert Inline().submit(os.getpid).result() == os.getpid()
    assert isinstance(Inline().submit(int, "x").exception(), ValueError)
