"""Calls for workers, in a module that is imported quickly."""

import os
import time

from mnist_exp.sweep.worker import on_start


def pid_after(seconds: float) -> int:
    on_start.get()()
    time.sleep(seconds)
    return os.getpid()
