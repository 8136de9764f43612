import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import psutil
import pytest

from mnist_exp.commands import ui
from mnist_exp.tracking.sqlite import create_database

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a local store in it."""
    folder = tmp_path_factory.mktemp("my runs")
    create_database(folder / "mlruns" / "mlflow.db")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder."""
    return tmp_path


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command in the folder of the store; what a failed test leaves running is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
        environment["PYTHONUNBUFFERED"] = "1"
        command = [sys.executable, "-m", "mnist_exp", "ui", *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True, env=environment))
        return started[-1]

    yield start
    for server in started:
        with suppress(psutil.NoSuchProcess):
            for process in family(server):
                process.kill()
        server.wait()


def family(server: subprocess.Popen[str]) -> list[psutil.Process]:
    process = psutil.Process(server.pid)
    return [process, *process.children(recursive=True)]


def line(server: subprocess.Popen[str]) -> str:
    """The next line of standard output; on its end the test fails with what standard error says."""
    assert server.stdout
    assert server.stderr
    return server.stdout.readline().strip() or pytest.fail(server.stderr.read())


def port_of(link: str) -> int:
    address, _, _ = link.removeprefix("http://127.0.0.1:").partition("/")
    assert link == f"http://127.0.0.1:{address}/#/experiments?workflowType=machine_learning  Ctrl-C ends"
    return int(address)


def health(port: int) -> bytes:
    return build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/health", timeout=30).read()


@pytest.mark.servers
def test_it_serves_this_machine_alone_until_ctrl_c(serve: Callable[..., subprocess.Popen[str]]) -> None:
    server = serve("--port", "0")
    port = port_of(line(server))
    assert line(server).startswith(f"Default: http://127.0.0.1:{port}/#/experiments/0/runs?")
    assert health(port) == b"OK"
    processes = family(server)
    assert len(processes) > 1
    listening = [c.laddr for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    assert {tuple(address) for address in listening} == {("127.0.0.1", port)}
    server.send_signal(signal.SIGINT)
    rest, said = server.communicate(timeout=60)
    assert (server.returncode, rest, said) == (0, "", "")
    assert psutil.wait_procs(processes, timeout=10)[1] == []


@pytest.mark.servers
def test_it_takes_a_free_port_and_leaves_no_process_on_sigterm(serve: Callable[..., subprocess.Popen[str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        server = serve("--port", str(taken))
        assert line(server).startswith(f"port {taken} is in use; using port ")
        port = port_of(line(server))
        assert port != taken
        assert health(port) == b"OK"
        processes = family(server)
        server.terminate()
        assert server.wait(timeout=60) == 143
    assert psutil.wait_procs(processes, timeout=10)[1] == []


def test_a_folder_without_a_store_is_refused_and_left_as_it_is(run_main: Main, tmp_path: Path) -> None:
    status, out, err = run_main("ui", "--folder", "nowhere")
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {tmp_path}/nowhere/mlflow.db does not exist; start a run")
    assert not list(tmp_path.iterdir())


def test_a_damaged_store_is_refused(run_main: Main, tmp_path: Path) -> None:
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(b"no database at all" * 1000)
    status, out, err = run_main("ui")
    assert (status, out) == (1, "")
    assert "error: " in err
    assert "mlflow.db is damaged" in err
    assert "Traceback" not in err


def test_a_file_store_is_refused(run_main: Main) -> None:
    status, _, err = run_main("ui", "--uri", "file:///somewhere")
    assert status == 1
    assert "tracking.uri must be a database or a server, but got 'file:///somewhere'" in err


def test_a_server_is_named_and_not_served_again(run_main: Main) -> None:
    status, out, err = run_main("ui", "--uri", "http://tracker:5000/")
    assert (status, err) == (0, "")
    assert out == "http://tracker:5000/#/experiments?workflowType=machine_learning\n"


def test_a_port_that_is_none_is_refused(run_main: Main) -> None:
    status, _, err = run_main("ui", "--port", "70000")
    assert status == 2
    assert "Invalid value for '--port'" in err


@pytest.mark.skipif(not shutil.which("false"), reason="needs a program that fails")
def test_a_server_that_ends_by_itself_is_an_error(
    folder: Path, run_main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui.sys, "executable", shutil.which("false"))
    status, out, err = run_main("ui", "--port", "0", "--folder", str(folder / "mlruns"))
    assert (status, out) == (1, "")
    assert "error: MLflow's server ended with status 1" in err
