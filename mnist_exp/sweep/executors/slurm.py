"""Trials on Slurm jobs, each of which is a Dask worker."""

import subprocess
import sys
from pathlib import Path

from mnist_exp.config import schema as settings
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.sweep.executors.dask import Cluster

UNUSED = ("TARGET", "SPILL", "PAUSE")  # of Dask's measures against full memory


def start_cluster(keys: settings.SlurmExecutor, *, shared: bool) -> Cluster:
    """Starts Slurm jobs with one worker each. Ended jobs are replaced; all jobs end with the sweep.

    Raises ConfigError if Slurm does not accept such a job.
    """
    import dask
    from dask_jobqueue import SLURMCluster
    from distributed import Security
    from distributed.utils import get_ip

    _check_job(keys)
    wanted = keys.workers or 1
    listening = {"interface": keys.interface} if keys.interface else {"host": get_ip()}  # not on all networks
    cluster = SLURMCluster(
        queue=keys.partition,
        cores=1,
        processes=1,
        memory=keys.memory,
        walltime=keys.walltime,
        job_cpu=keys.cpus,
        job_extra_directives=[f"--gres=gpu:{keys.gpus}"] if keys.gpus else [],
        worker_extra_args=["--resources", f"GPU={keys.gpus}"] if keys.gpus else [],
        # What TensorFlow holds is not Dask's to spill, and a worker that Dask pauses for it would stay so.
        job_script_prologue=[f"export DASK_DISTRIBUTED__WORKER__MEMORY__{key}=False" for key in UNUSED],
        python=sys.executable,
        interface=keys.interface,
        security=Security.temporary(),  # who reaches the scheduler without its key can send it no code
        # The jobs read the key from files, which only this user can read, and which end with the cluster.
        shared_temp_directory=dask.config.get("jobqueue.slurm.shared-temp-directory", None) or str(Path.cwd()),
        scheduler_options={"dashboard_address": "127.0.0.1:0", **listening},
    )
    cluster.adapt(minimum=wanted, maximum=wanted)
    keys = keys.model_copy(update={"workers": wanted})
    return Cluster(keys, cluster.scheduler_address, cluster.security, shared=shared, started=cluster)


def _check_job(keys: settings.SlurmExecutor) -> None:
    """Asks Slurm whether it would take a worker's job."""
    asked = ["sbatch", "--test-only", "--wrap=true", f"--cpus-per-task={keys.cpus}", f"--time={keys.walltime}"]
    asked += [f"--partition={keys.partition}"] if keys.partition else []
    asked += [f"--gres=gpu:{keys.gpus}"] if keys.gpus else []
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(Problem("executor=slurm", f"must be started where sbatch works ({error})")) from error
    if said.returncode:
        reason = " ".join(said.stderr.split()).removeprefix("sbatch: error: ") or "it gave no reason"
        rule, remedy = f"cannot run: Slurm does not take such a job: {reason}", "see conf/executor/slurm.yaml"
        raise ConfigError(Problem("executor=slurm", rule, remedy=remedy))
