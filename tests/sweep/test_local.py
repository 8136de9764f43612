"""Local workers: forked and spawned, reused and replaced, killed and left behind."""

import importlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from calls import pid_after
from light_trials import study_of
from processes import stop_server
from test_kills import Silent

from mnist_exp.sweep import engine
from mnist_exp.sweep.executors import local as local_module
from mnist_exp.sweep.executors.local import Local, worker_environment
from mnist_exp.sweep.pruners.median import MedianPruner
from mnist_exp.sweep.recorder import TrialRecorder
from mnist_exp.sweep.search import search
from mnist_exp.sweep.trial import Job, Outcome, Proposal
from mnist_exp.sweep.worker import on_start
from mnist_exp.tracking.store import connect
from mnist_exp.tracking.sweep_run import SweepRun

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is used on Linux only")

LIBRARIES = ("tensorflow", "keras", "mlflow", "sklearn", "matplotlib", "mnist_exp")


@pytest.fixture(scope="module", autouse=True)
def _own_fork_server():
    """The one of this module imports what executor=local imports, and no tests have used it."""
    stop_server()
    yield
    stop_server()


@pytest.fixture(scope="module")
def local(_own_fork_server):
    with Local(2) as found:
        yield found


def environment(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def fork_server(local: Local) -> psutil.Process:
    return psutil.Process(local.submit(os.getppid).result(timeout=60))


def start(local: Local, seconds: float):
    """A call that has begun in its worker."""
    future = local.submit(pid_after, seconds)
    while not future.running() and not future.done():
        time.sleep(0.01)
    return future


# --- one process, many calls


def test_workers_are_other_processes_and_serve_many_calls(local):
    first = {future.result() for future in [local.submit(pid_after, 0.3) for _ in range(2)]}
    assert len(first) == 2
    assert os.getpid() not in first
    assert {future.result() for future in [local.submit(pid_after, 0.3) for _ in range(2)]} == first


def test_a_slot_is_free_as_soon_as_its_call_has_ended(local):
    """The engine submits the next trial at once."""
    for number in range(300):
        assert local.submit(abs, -number).result() == number


KEPT = []


def keep(megabytes: int) -> tuple[int, int]:
    KEPT.append(b"x" * (megabytes << 20))
    return os.getpid(), psutil.Process().memory_info().rss >> 20


def test_a_worker_that_has_grown_is_replaced():
    with Local(1, max_growth=100 << 20) as one:
        found = [one.submit(keep, 40).result() for _ in range(8)]
    pids = [pid for pid, _ in found]
    assert pids == [pids[0]] * 4 + [pids[4]] * 4
    assert pids[0] != pids[4]
    sizes = [size for _, size in found]
    assert max(sizes) - min(sizes) < 200


# --- the fork server


def test_the_fork_server_has_one_thread_and_no_terminal(local):
    server = fork_server(local)
    assert [thread.name for thread in Path(f"/proc/{server.pid}/task").iterdir()] == [str(server.pid)]
    assert [os.readlink(f"/proc/{server.pid}/fd/{number}") for number in range(3)] == [os.devnull] * 3


def imported() -> set[str]:
    return {name for name in sys.modules if name.partition(".")[0] in LIBRARIES}


def train(job: Job) -> tuple[Outcome, set[str]]:
    from mnist_exp.sweep.worker import run_trial

    before = imported()
    return run_trial(job), imported() - before


def test_a_trial_finds_its_libraries_imported(tracking):
    """An import that is missing in preload.LIBRARIES would be repeated by every worker."""
    study = study_of("grid", "model.widths=[16]", "training=smoke")
    record = SweepRun.create(connect(tracking), "sweeps", "study", study.to_record())
    recorder = TrialRecorder(study, record, tracking, MedianPruner(1), Silent())
    job = recorder.begin(Proposal(0, {"model.dropout": 0.1, "seed": 2}))
    with Local(1) as one:
        libraries = one.submit(imported).result()
        outcome, more = one.submit(train, replace(job, digest=None)).result()
    assert outcome.failure is None
    assert {"tensorflow", "keras", "mlflow", "sklearn.metrics"} <= libraries
    assert not {name for name in more if name.startswith("mnist_exp")}
    assert len(more) < 40, sorted(more)


def test_without_a_fork_server_running_calls_go_on_and_the_next_gets_another(local):
    server = fork_server(local)
    running = start(local, 2.0)
    server.kill()
    while server.status() != psutil.STATUS_ZOMBIE:  # psutil's wait() would collect it
        time.sleep(0.01)
    after = local.submit(os.getppid).result(timeout=60)
    assert isinstance(running.result(timeout=30), int)
    assert after != server.pid


def test_spawned_workers_do_the_same(monkeypatch):
    monkeypatch.setenv("OF_THE_PARENT", "seen")
    with Local(1, "spawn") as one:
        first = one.submit(pid_after, 0.0)
        assert not first.running()
        pid = first.result(timeout=120)
        assert one.submit(os.getppid).result() == os.getpid()  # without a fork server
        assert one.submit(environment, "OF_THE_PARENT", "TF_NUM_INTRAOP_THREADS").result() == [
            "seen",
            str(os.cpu_count()),
        ]
        assert one.submit(pid_after, 0.0).result() == pid
        os.kill(pid, signal.SIGINT)
        hanging = start(one, 60.0)
        os.kill(pid, signal.SIGKILL)
        assert isinstance(hanging.exception(timeout=30), BrokenExecutor)


# --- environment


def test_the_environment_is_the_parents_when_the_worker_starts(local, monkeypatch):
    """Not that of the fork server, which started earlier."""
    monkeypatch.setenv("SET_LATER", "seen")
    with Local(1) as one:
        assert one.submit(environment, "SET_LATER").result() == ["seen"]
    name = "PYTEST_CURRENT_TEST"  # the fork server was started within a test
    monkeypatch.delenv(name)
    with Local(1) as one:
        assert one.submit(environment, name, "HDF5_PLUGIN_PATH").result() == [None, "disable"]  # which Keras has set


def count_threads() -> dict[str, int]:
    """Threads of TensorFlow's XLA, and of numpy's OpenBLAS, after an operation of each."""
    import tensorflow as tf
    from threadpoolctl import threadpool_info

    square = tf.function(lambda x: tf.reduce_sum(tf.matmul(x, x)), jit_compile=True)
    square(tf.ones((500, 500)))
    tasks = Path("/proc/self/task")
    names = [(task / "comm").read_text().strip() for task in tasks.iterdir()]
    blas = {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}
    return {"compute": names.count("tf_Compute"), "xla": names.count("tf_XLAEigen"), "blas": max(blas)}


def test_a_worker_uses_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    with Local(2) as two:
        assert two.submit(count_threads).result() == {"compute": 3, "xla": 3, "blas": 3}


@pytest.mark.parametrize(
    ("visible", "places"),
    [("0,1", ["0", "1", "-1"]), ("GPU-a", ["GPU-a", "-1"]), ("", ["", ""]), ("-1", ["-1", "-1"])],
)
def test_a_gpu_belongs_to_one_worker_and_none_is_used_where_none_is_visible(visible, places, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(local_module.Path, "glob", lambda *args: [Path("/dev/nvidia0"), Path("/dev/nvidia1")])
    found = [worker_environment(place, len(places))["CUDA_VISIBLE_DEVICES"] for place in range(len(places))]
    assert found == places


def test_the_choice_of_gpus_reaches_the_worker(local, monkeypatch):
    for visible, expected in (("3,4", "3"), ("", "")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with Local(1) as one:
            assert one.submit(environment, "CUDA_VISIBLE_DEVICES").result() == [expected]


def call(module: str, name: str) -> object:
    return getattr(importlib.import_module(module), name)()


def test_code_in_the_current_folder_can_be_imported(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text("import os\ndef where(): return os.getcwd()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with Local(1) as one:
        assert one.submit(call, "own_net", "where").result() == str(tmp_path)


# --- errors


class Odd(Exception):
    """Can be pickled, but not read again."""

    def __init__(self, some, more):
        super().__init__(f"{some} {more}")


def fail(kind: str) -> object:
    if kind == "odd":
        raise Odd("too", "odd")
    if kind == "unpicklable":
        return lambda: None
    return int("x")


def test_an_exception_comes_back_with_its_traceback(local):
    error = local.submit(fail, "plain").exception()
    assert isinstance(error, ValueError)
    assert "test_local.py" in error.__notes__[0]


@pytest.mark.parametrize(("kind", "text"), [("odd", "Odd: too odd"), ("unpicklable", "pickle")])
def test_what_cannot_be_pickled_is_an_error_of_its_call_only(local, kind, text):
    assert text in str(local.submit(fail, kind).exception(timeout=60))
    assert local.submit(abs, -1).result(timeout=60) == 1


def test_a_call_that_cannot_be_sent_is_an_error_of_its_own(local):
    assert "pickle" in str(local.submit(lambda: None).exception(timeout=60))
    assert local.submit(abs, -1).result(timeout=60) == 1


def test_a_net_that_exits_ends_its_own_trial_only(local):
    assert isinstance(local.submit(sys.exit, 3).exception(timeout=60), SystemExit)
    assert isinstance(local.submit(os._exit, 3).exception(timeout=60), BrokenExecutor)
    assert local.submit(abs, -1).result(timeout=60) == 1


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_library_that_cannot_be_imported_is_named(tmp_path, method):
    (tmp_path / "mlflow.py").write_text("raise RuntimeError('a broken install')")
    code = "from mnist_exp.sweep.executors.local import Local; print(repr(Local(1, %r).submit(abs, 1).exception()))"
    done = subprocess.run([sys.executable, "-c", code % method], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "ImportError('mlflow.keras cannot be imported: RuntimeError: a broken install')\n"
    assert done.stderr == ""


# --- kills and signals


def test_a_killed_worker_takes_no_other_with_it(local):
    victim_pid = local.submit(pid_after, 0.0).result()
    victim, beside = start(local, 60.0), start(local, 3.0)
    os.kill(victim_pid, signal.SIGKILL)
    assert isinstance(victim.exception(timeout=30), BrokenExecutor)
    assert isinstance(beside.result(timeout=30), int)
    assert isinstance(local.submit(pid_after, 0.0).result(timeout=60), int)  # another has taken its place


def test_a_worker_that_was_killed_while_idle_costs_no_trial(local):
    os.kill(local.submit(os.getpid).result(), signal.SIGKILL)
    time.sleep(0.3)
    assert isinstance(local.submit(os.getpid).result(timeout=60), int)


def test_a_call_that_hangs_can_be_killed(local):
    pid = local.submit(os.getpid).result()
    hanging = start(local, 600.0)
    local.kill(hanging)
    assert hanging.exception(timeout=1)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert isinstance(local.submit(pid_after, 0.0).result(timeout=60), int)


def test_a_worker_can_be_killed_while_it_starts():
    with Local(1, "spawn") as one:
        starting = one.submit(pid_after, 0.0)
        one.kill(starting)
        assert starting.exception(timeout=1)
        assert isinstance(one.submit(pid_after, 0.0).result(timeout=120), int)
        names = [" ".join(child.cmdline()) for child in psutil.Process().children()]
        assert sum("spawn_main" in name for name in names) == 1


def test_ctrl_c_is_left_to_the_parent(local):
    running, server = start(local, 2.0), fork_server(local)
    for process in [server, *server.children()]:
        process.send_signal(signal.SIGINT)
    assert isinstance(running.result(timeout=30), int)
    assert fork_server(local) == server


def test_the_start_of_a_worker_does_not_count_towards_sweep_trial_timeout(tracking, monkeypatch):
    """A spawned worker imports TensorFlow for longer than the trial may take."""
    monkeypatch.setattr(engine, "GRACE", 0)
    study, store = study_of("random", max_trials=2, trial_timeout=1.0), connect(tracking)
    record = SweepRun.create(store, tracking.experiment, study.name, study.to_record())
    with Local(1, "spawn") as one:
        search(study, record, tracking, one, Silent(), brief)
    assert [trial.outcome for trial in record.trials()] == ["complete", "complete"]


def brief(job: Job) -> Outcome:
    from light_trials import light

    on_start.get()()
    return light(job)


# --- the end of the parent

PARENT = """
import os, sys, time
sys.path.insert(0, {tests!r})
with open("main", "a") as file:
    file.write(__name__ + "\\n")

def main(wanted):
    from mnist_exp.sweep.executors.local import Local
    from calls import pid_after

    local = Local(2)
    if wanted == "at once":
        print(flush=True)
        time.sleep(600)
    print(local.submit(pid_after, 0.0).result(), flush=True)
    if wanted == "return":
        print("on the terminal")
        return
    local.submit(pid_after, 600.0)
    time.sleep(600)

if __name__ == "__main__":
    main(sys.argv[1])
"""


def family_of(parent: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(parent.pid).children(recursive=True)


def is_gone(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE  # where nobody collects it, as in many containers
    return True


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "own" / "__main__.py").parent.mkdir()
    (tmp_path / "own" / "__main__.py").write_text(PARENT.format(tests=str(Path(__file__).parent)))
    return tmp_path


def run(script: Path, wanted: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "own", wanted], cwd=script, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("moment", ["running", "at once"])
def test_no_process_stays_when_the_parent_is_killed(script, moment):
    """`at once`: the fork server has not finished its imports."""
    parent = run(script, moment)
    assert parent.stdout is not None
    parent.stdout.readline()
    family = family_of(parent)
    assert len(family) >= (2 if moment == "at once" else 3)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 20
    while not all(map(is_gone, family)):
        assert time.monotonic() < until, [process.cmdline() for process in family if not is_gone(process)]
        time.sleep(0.1)


def test_a_parent_that_forgets_its_workers_ends_and_its_main_module_ran_once(script):
    parent = run(script, "return")
    out, _ = parent.communicate(timeout=60)  # nobody else holds its standard output open
    assert parent.returncode == 0
    assert out.endswith("on the terminal\n")
    assert (script / "main").read_text() == "__main__\n"


def begin_another() -> int:
    with Local(1) as one:
        return one.submit(pid_after, 0.0).result()


def test_a_worker_may_have_workers_of_its_own():
    with Local(1) as one:
        assert one.submit(begin_another).result(timeout=120) != one.submit(os.getpid).result()
