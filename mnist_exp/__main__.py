"""python -m mnist_exp"""

from mnist_exp.cli import run_process

run_process()
