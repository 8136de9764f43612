"""Workers that are warm, killed, crowded and left alone."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from mnist_exp.config.schema import Executor
from mnist_exp.sweep.executors import create_executor
from mnist_exp.sweep.executors import local as local_module
from mnist_exp.sweep.executors.base import Inline
from mnist_exp.sweep.executors.local import Local


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def environment(names: list[str]) -> list[str | None]:
    return [os.environ.get(name) for name in names]


@pytest.fixture(scope="module")
def local():
    with Local(2) as found:
        yield found


def test_the_keys_choose_the_executor():
    assert isinstance(create_executor(Executor(kind="inline", workers=1), "sqlite:///x"), Inline)
    with create_executor(Executor(kind="local", workers=None), "sqlite:///x") as found:
        assert found.width == os.cpu_count()


def test_inline_runs_here_and_hands_over_what_is_raised():
    assert Inline().submit(os.getpid).result() == os.getpid()
    assert isinstance(Inline().submit(int, "x").exception(), ValueError)


def test_workers_stay_warm_and_are_other_processes(local):
    first = {local.submit(pid_after, 0.3) for _ in range(2)}
    pids = {future.result() for future in first}
    assert len(pids) == 2
    assert os.getpid() not in pids
    again = {local.submit(pid_after, 0.3) for _ in range(2)}
    assert {future.result() for future in again} == pids


def test_each_worker_has_its_share_of_the_cores(local):
    (found,) = local.submit(environment, ["TF_NUM_INTRAOP_THREADS"]).result()
    assert int(found) == max(1, (os.cpu_count() or 1) // 2)


def test_a_killed_worker_takes_no_other_with_it(local):
    beside, victim = local.submit(pid_after, 3.0), local.submit(pid_after, 60.0)
    (pid,) = local._pools[1]._processes
    os.kill(pid, signal.SIGKILL)
    assert isinstance(victim.exception(timeout=30), BrokenExecutor)
    assert isinstance(beside.result(timeout=30), int)
    assert isinstance(local.submit(pid_after, 0.0).result(timeout=60), int)  # in its place stands another


def test_a_call_that_hangs_can_be_killed(local):
    hanging = local.submit(pid_after, 600.0)
    time.sleep(1)
    local.kill(hanging)
    assert isinstance(local.submit(pid_after, 0.0).result(timeout=60), int)


def test_ctrl_c_is_the_parents_business(local):
    future = local.submit(pid_after, 2.0)
    time.sleep(0.5)
    for pid in local._pools[0]._processes:
        os.kill(pid, signal.SIGINT)
    assert isinstance(future.result(timeout=30), int)


@pytest.mark.parametrize(("visible", "slots"), [("0,1", ["0", "1", "-1"]), ("GPU-a", ["GPU-a", "-1"])])
def test_a_gpu_belongs_to_one_worker(visible, slots, monkeypatch):
    monkeypatch.setattr(local_module.threading.Thread, "start", lambda thread: None)
    monkeypatch.setattr(local_module.signal, "signal", lambda *args: None)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    for slot, device in enumerate(slots):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        local_module._begin_worker(os.getpid(), len(slots), slot)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == device


ORPHANED = """
import sys, time
sys.path.insert(0, {tests!r})
from mnist_exp.sweep.executors.local import Local
from test_executors import pid_after
if __name__ == "__main__":
    local = Local(1)
    print(local.submit(pid_after, 0.0).result(), flush=True)
    local.submit(pid_after, 600.0)
    time.sleep(600)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path):
    import psutil

    script = tmp_path / "parent.py"
    script.write_text(ORPHANED.format(tests=str(Path(__file__).parent)))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    gone, _ = psutil.wait_procs([worker], timeout=15)
    assert gone or worker.status() == psutil.STATUS_ZOMBIE
