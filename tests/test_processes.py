"""A process of the fork server behaves like one that the shell starts."""

import os
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from processes import at_call, call, die, run, start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def tell_surroundings() -> None:
    print(os.getcwd(), os.environ.get("COLOUR"), os.environ.get("MLFLOW_TRACKING_URI"), sys.stdin.read())
    os.write(2, b"noise\n")


def end_with(status: object) -> None:
    if isinstance(status, Exception):
        raise status
    sys.exit(status)  # type: ignore[arg-type]


def wait_to_be_stopped() -> None:
    print("ready", flush=True)
    time.sleep(600)


def tell_threads_of_server() -> None:
    tasks = Path(f"/proc/{os.getppid()}/task")
    print(*sorted((task / "comm").read_text().strip() for task in tasks.iterdir() if task.name != str(os.getppid())))


def test_it_has_the_folder_environment_and_streams_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "in").write_text("hello")
    process = call(tell_surroundings, cwd=tmp_path, environment={"COLOUR": "red"}, stdin=tmp_path / "in")
    assert process.wait() == 0
    assert process.stdout == f"{tmp_path} red None hello\n"
    assert process.stderr == "noise\n"


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        (None, 0, ""),
        (3, 3, ""),
        ("no luck", 1, "no luck\n"),
        (ValueError("no luck"), 1, "ValueError: no luck\n"),
    ],
    ids=["none", "number", "text", "error"],
)
def test_it_ends_with_the_status_of_an_interpreter(end: object, status: int, said: str, tmp_path: Path) -> None:
    process = call(end_with, end, cwd=tmp_path)
    assert process.wait() == status
    assert process.stderr.endswith(said)
    assert ("Traceback" in process.stderr) == isinstance(end, Exception)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it(number: signal.Signals, tmp_path: Path) -> None:
    process = call(wait_to_be_stopped, cwd=tmp_path)
    process.wait_for(lambda: process.stdout == "ready\n")
    process.send_signal(number)
    assert process.wait() == -number
    assert ("KeyboardInterrupt" in process.stderr) == (number == signal.SIGINT)


def test_it_runs_the_command_line_and_dies_at_the_call_that_was_chosen(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout == f"mnist_exp {version('mnist_exp')}\n"
    wrong = run("seed=one", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("error: seed must be an integer, but got 'one'\n")
    killed = start("seed=one", cwd=tmp_path, prepare=at_call(GlobalHydra, "clear", 1, die))
    assert killed.wait() == -signal.SIGKILL


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_the_server_has_no_threads_that_a_fork_would_lose(tmp_path: Path) -> None:
    process = call(tell_threads_of_server, cwd=tmp_path)
    assert process.wait() == 0
    assert set(process.stdout.split()) <= {"jemalloc_bg_thd"}  # of Arrow, which MLflow imports, and safe
