"""A sweep on a real Slurm of one node, with a job cancelled in the middle."""

import getpass
from pathlib import Path

import psutil
import pytest
from distributed import Client, Security
from light_trials import light, study_of
from services import PATHS, Slurm, wait_for

from mnist_exp.config.schema import SlurmExecutor, Tracking
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.display import SweepDisplay
from mnist_exp.sweep.executors import create_executor
from mnist_exp.sweep.executors.dask import Cluster
from mnist_exp.sweep.search import search
from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.sweep_run import SweepRun

pytestmark = pytest.mark.servers


def slow(job):
    """A light trial, long enough for a job to be cancelled in it."""
    import time

    time.sleep(0.7)
    return light(job)


def jobs(slurm: Slurm) -> list[str]:
    return slurm.ask("squeue", "--noheader", "--format=%i", "--states=running").split()


def assert_closed_to_others(address: str, folder: Path) -> None:
    """The scheduler listens on one interface, asks for a key, and only this user can read the key."""
    assert address.startswith("tls://127.0.0.1:")
    port = int(address.rpartition(":")[2])
    listening = [one for one in psutil.Process().net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    assert {one.laddr.ip for one in listening if one.laddr.port == port} == {"127.0.0.1"}
    for security in (None, Security.temporary()):  # no key, and one of somebody else's
        with (
            pytest.raises(OSError, match=r"TLS certificate|Connection reset|closed|after 3 s"),
            Client(address if security else address.replace("tls", "tcp"), security=security, timeout=3),
        ):
            pass
    keys = [path for path in folder.iterdir() if path.is_file() and "PRIVATE KEY" in path.read_text(errors="replace")]
    assert keys
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


def test_a_cancelled_job_costs_a_try_and_another_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if getpass.getuser() != "root":
        pytest.skip("Slurm's daemons start jobs only as root")
    monkeypatch.setattr(Cluster.refresh, "__defaults__", (0.2,))
    monkeypatch.setenv("PYTHONPATH", PATHS)
    monkeypatch.chdir(tmp_path)
    tracking = Tracking(enabled=True, uri=None, experiment="slurm", folder=str(tmp_path / "mlruns"))
    study = study_of("random", max_trials=20)
    with Slurm(tmp_path) as slurm:
        for key, value in slurm.environment.items():
            monkeypatch.setenv(key, value)
        keys = SlurmExecutor(
            kind="slurm", workers=2, partition="main", memory="2GB", walltime="00:10:00", interface="lo"
        )
        store = connect(tracking)
        with pytest.raises(ConfigError, match=r"Slurm does not take such a job: .*partition.*see conf/executor/slurm"):
            create_executor(keys.model_copy(update={"partition": "nowhere"}), store.uri)
        with create_executor(keys, store.uri) as slots:
            wait_for(lambda: slots.refresh() or slots.width == 2, "two workers", 120)
            first = jobs(slurm)
            assert len(first) == 2
            assert_closed_to_others(slots._address, tmp_path)
            record = SweepRun.create(store, "slurm", "study", study.to_record())
            cancelled = []

            class Cancelling(SweepDisplay):
                """Cancels a job when the fifth trial has ended."""

                def end(self, *trial) -> None:
                    super().end(*trial)
                    if len(self.ended) == 5:
                        cancelled.append(first[0])
                        slurm.ask("scancel", first[0])

            search(study, record, tracking, slots, Cancelling(), slow)
            wait_for(lambda: set(jobs(slurm)) - set(first), "another job in its place", 60)
            assert cancelled[0] not in jobs(slurm)
        assert [trial.outcome for trial in record.trials()] == ["complete"] * 20
        runs = list_runs(store, "tags.kind = 'trial'")
        assert {run.tags.get("superseded") for run in runs} == {None, "its worker was killed"}
        wait_for(lambda: not jobs(slurm), "the end of the jobs with the sweep")
