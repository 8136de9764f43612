"""A real scheduler and workers with nannies on 127.0.0.1: killed, restarted, too few and too many."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from distributed import Security
from services import Dask

from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import DaskExecutor
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.executors import create_executor
from mnist_exp.sweep.executors import dask as dask_module
from mnist_exp.sweep.executors.base import THREADS, Preempted
from mnist_exp.sweep.executors.dask import Cluster, read_security
from mnist_exp.sweep.worker import Cancelled, is_cancelled, on_start


def slept(job) -> tuple[int, dict, dict]:
    """Sleeps in steps, as a training asks after each batch whether it is still wanted."""
    on_start.get()()
    for _ in range(round(job.seconds * 20)):
        if is_cancelled.get()():
            Path(job.name).write_text("cancelled")
            raise Cancelled
        time.sleep(0.05)
    return os.getpid(), job.config.values, {name: os.environ.get(name) for name in THREADS}


def failing(job) -> None:
    raise ValueError("it failed")


def hanging(job) -> None:
    """Never asks whether it is still wanted."""
    time.sleep(600)


def keys_of(address: str, **keys: object) -> DaskExecutor:
    return DaskExecutor.model_validate({"kind": "dask", "workers": None, "address": address, **keys})


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    with Dask(tmp_path) as found:
        yield found


@pytest.fixture
def slots(dask: Dask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cluster]]:
    monkeypatch.setattr(Cluster.refresh, "__defaults__", (0.1,))
    opened: list[Cluster] = []

    def connect(workers: int, *, shared: bool = False, **keys: object) -> Cluster:
        opened.append(Cluster(keys_of(dask.address, **keys), dask.address, None, shared=shared))
        until(opened[-1], lambda: opened[-1].width == workers)
        return opened[-1]

    yield connect
    for one in opened:
        one.shutdown()


def until(slots: Cluster, met: Callable[[], bool], seconds: float = 60) -> None:
    """Looks as the engine does, until this is so."""
    begun = time.monotonic()
    while not met():
        assert time.monotonic() - begun < seconds
        slots.refresh()
        time.sleep(0.1)


@dataclass(frozen=True)
class Job:
    """What of a job a worker reads."""

    seconds: float
    name: str = "job"
    config: RunConfig = field(
        default_factory=lambda: RunConfig({"tracking": {"folder": "mlruns"}, "dataset": {"path": "here.npz"}}, {})
    )


def ended(slots: Cluster, *futures) -> None:
    until(slots, lambda: all(future.done() for future in futures))


@pytest.mark.servers
def test_each_worker_has_one_trial_its_own_folder_threads_and_data(dask: Dask, slots) -> None:
    for _ in range(2):
        dask.add()
    two = slots(2, dataset_path="/data/there.npz")
    futures = [two.submit(slept, job=Job(1.0)) for _ in range(2)]
    refused = two.submit(slept, job=Job(1.0))
    assert isinstance(refused.exception(), Preempted)  # no third worker
    ended(two, *futures)
    found = [future.result() for future in futures]
    assert len({pid for pid, _, _ in found}) == 2
    for _, config, environment in found:
        assert config["dataset"]["path"] == "/data/there.npz"
        assert config["tracking"]["folder"] != "mlruns"
        assert set(environment.values()) == {str(max(1, (os.cpu_count() or 1) // 2))}
    again = two.submit(failing, job=Job(0.0))
    ended(two, again)
    assert str(again.exception()) == "it failed"


@pytest.mark.servers
def test_a_killed_worker_costs_its_trial_and_no_other(dask: Dask, slots) -> None:
    for _ in range(2):
        dask.add()
    two = slots(2)
    short = two.submit(slept, job=Job(0.0))
    ended(two, short)
    victim = two.submit(slept, job=Job(60.0))
    beside = two.submit(slept, job=Job(4.0))
    address, _ = two._busy[victim]
    os.kill(two._client.run(os.getpid, workers=[address])[address], signal.SIGKILL)
    ended(two, victim, beside)
    assert isinstance(victim.exception(), BrokenExecutor)
    assert isinstance(beside.result()[0], int)
    until(two, lambda: two.width == 2)  # its nanny started another


@pytest.mark.servers
def test_a_scheduler_that_is_restarted_disturbs_and_blames_nobody(dask: Dask, slots) -> None:
    dask.add()
    one = slots(1)
    running = one.submit(slept, job=Job(60.0))
    until(one, running.running)  # the worker told that the trial begins
    dask.restart_scheduler()
    ended(one, running)
    assert isinstance(running.exception(), Preempted)
    until(one, lambda: one.width == 0)  # Dask's workers end with their scheduler
    dask.add()
    until(one, lambda: one.width == 1)
    again = one.submit(slept, job=Job(0.0))
    ended(one, again)
    assert again.exception() is None


@pytest.mark.servers
def test_workers_come_and_go(dask: Dask, slots) -> None:
    first = dask.add("--no-nanny")
    one = slots(1)
    dask.add()
    until(one, lambda: one.width == 2)
    first.kill()
    until(one, lambda: one.width == 1)


@pytest.mark.servers
def test_what_nobody_waits_for_ends_within_a_step(dask: Dask, slots, tmp_path: Path) -> None:
    dask.add()
    one = slots(1)
    left = tmp_path / "left"
    one.submit(slept, job=Job(60.0, name=str(left)))
    time.sleep(2)
    one.shutdown()  # as if this process were gone
    begun = time.monotonic()
    while not left.exists():
        assert time.monotonic() - begun < 20
        time.sleep(0.1)


@pytest.mark.servers
def test_a_trial_that_hangs_is_ended_with_its_worker(dask: Dask, slots) -> None:
    dask.add()
    one = slots(1)
    stuck = one.submit(hanging, job=Job(600.0))
    time.sleep(1)
    assert not stuck.running()
    assert not stuck.done()
    one.kill(stuck)
    until(one, lambda: one.width == 1)
    after = one.submit(slept, job=Job(0.0))
    ended(one, after)
    assert after.exception() is None


@pytest.mark.servers
def test_only_workers_with_a_gpu_are_taken_where_one_is_asked_for(dask: Dask, slots) -> None:
    dask.add()
    dask.add("--resources", "GPU=1")
    one = slots(1, gpus=1)
    future = one.submit(slept, job=Job(0.0))
    ended(one, future)
    assert future.exception() is None


@pytest.mark.servers
def test_a_scheduler_behind_tls_is_reached_with_its_certificates_and_not_without(tmp_path: Path) -> None:
    given = Security.temporary()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    for name, text in {"ca": given.tls_ca_file, "cert": given.tls_client_cert, "key": given.tls_client_key}.items():
        files[name].write_text(str(text))
    said = ["--protocol", "tls", "--tls-ca-file", files["ca"], "--tls-cert", files["cert"], "--tls-key", files["key"]]
    with Dask(tmp_path, [str(word) for word in said]) as dask:
        dask.add()
        keys = keys_of(dask.address)
        assert dask.address.startswith("tls://")
        with pytest.raises(ConfigError, match=r"needs executor\.tls_ca, tls_cert and tls_key"):
            read_security(keys)
        tls = {f"tls_{name}": str(path) for name, path in files.items()}
        with Cluster(keys, dask.address, read_security(keys.model_copy(update=tls)), shared=True) as one:
            until(one, lambda: one.width == 1)
            future = one.submit(slept, job=Job(0.0))
            ended(one, future)
            assert future.exception() is None


def test_an_address_where_nobody_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_module, "ANSWER", 1)
    with pytest.raises(ConfigError, match=r"must be the address of a Dask scheduler, .* at tcp://127\.0\.0\.1:9 none"):
        create_executor(keys_of("tcp://127.0.0.1:9"), "http://tracker")


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r'executor=dask needs Dask, .*: pip install "mnist_exp\[cluster\]"'):
        create_executor(keys_of("tcp://127.0.0.1:9"), "http://tracker")


def test_what_is_no_address_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"such as tcp://host:8786, but got 'scheduler'"):
        create_executor(keys_of("scheduler"), "http://tracker")


@pytest.mark.servers
def test_workers_elsewhere_cannot_write_to_a_local_store(dask: Dask, slots, monkeypatch: pytest.MonkeyPatch) -> None:
    dask.add()
    slots(1)
    monkeypatch.setattr(dask_module, "_own_addresses", lambda: {"localhost"})
    slots(1, shared=True)
    with pytest.raises(ConfigError, match=r"a worker on 127\.0\.0\.1 cannot write to a SQLite store"):
        slots(1, shared=False)
