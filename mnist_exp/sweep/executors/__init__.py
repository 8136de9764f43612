"""Where trials run: the executors, and the function that chooses one."""

import os

from mnist_exp.config import schema as settings
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.sweep.executors import local
from mnist_exp.sweep.executors.base import Inline, TrialExecutor


def prepare_executor(keys: settings.Executor) -> None:
    """Starts in the background what takes long to start: the fork server of executor=local."""
    if keys.kind == "local" and local.default_method() == "forkserver":
        local.start_fork_server()


def create_executor(keys: settings.Executor, uri: str) -> TrialExecutor:
    """Returns the executor that these keys choose. Its workers can write to the store at `uri`. Raises ConfigError."""
    if keys.kind == "inline":
        return Inline()
    if keys.kind == "local":
        return local.Local(keys.workers or os.cpu_count() or 1)
    try:
        import dask_jobqueue  # noqa: F401
        import distributed  # noqa: F401
    except ImportError as error:
        rule, remedy = "needs Dask, which is not installed", 'install it with: pip install "mnist_exp[cluster]"'
        raise ConfigError(Problem(f"executor={keys.kind}", rule, remedy=remedy)) from error
    from mnist_exp.sweep.executors import dask, slurm

    shared = not uri.startswith("sqlite")
    if isinstance(keys, settings.SlurmExecutor):
        return slurm.start_cluster(keys, shared=shared)
    assert isinstance(keys, settings.DaskExecutor)
    return dask.Cluster(keys, keys.address, dask.read_security(keys), shared=shared)


def width(keys: settings.Executor) -> int:
    """Returns how many trials run at the same time, before any worker starts; 1 if only the cluster knows."""
    return keys.workers or (os.cpu_count() or 1 if keys.kind == "local" else 1)
