import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from mnist_exp import cli
from mnist_exp.errors import TrackingError
from mnist_exp.tracking.find import find_run
from mnist_exp.tracking.mlflow_run import MlflowRun
from mnist_exp.tracking.owner import end_dead_runs, process_tags
from mnist_exp.tracking.store import RETRIES, Store, long_retries, open_store, store_errors
from mnist_exp.tracking.stored_run import fetch_run


@pytest.mark.parametrize("outside", [False, True], ids=["tracking.uri", "MLFLOW_TRACKING_URI"])
@pytest.mark.parametrize("uri", ["file:///tmp/runs", "runs", "./runs", "/tmp/runs"])
def test_the_retired_file_store_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, outside: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    if outside:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    meant = tmp_path / "runs" if uri in ("runs", "./runs") else Path("/tmp/runs")
    expected = f"must be a database or a server, but got {uri!r}; .* use sqlite:///{meant}/mlflow.db, http://HOST:5000"
    with pytest.raises(TrackingError, match=expected):
        open_store(None if outside else uri, tmp_path / "mlruns")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_away_is_said_within_seconds(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(
        TrackingError, match=r"^http://127\.0\.0\.1:9 does not answer .*; start the server, correct tracking"
    ):
        open_store("http://127.0.0.1:9", tmp_path)
    assert time.monotonic() - begun < 15


@pytest.fixture
def answering_with() -> Iterator[Callable[[int], str]]:
    """Starts a server that gives every request this status, and returns its address."""
    servers = []

    def start(status: int) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "rule"),
    [
        (503, "must answer with a status below 500, but got 503; see the server's log"),
        (404, "failed: .* error code 404"),
    ],
)
def test_a_server_that_is_no_store(
    tmp_path: Path, answering_with: Callable[[int], str], status: int, rule: str
) -> None:
    begun = time.monotonic()
    with pytest.raises(TrackingError, match=rule) as error:
        open_store(address := answering_with(status), tmp_path)
    assert str(error.value).startswith(f"{address} ")
    assert time.monotonic() - begun < 15


def test_a_database_without_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with pytest.raises(TrackingError, match=r"^mysql://host/runs needs its database driver .*; install it, or"):
        open_store("mysql://host/runs", tmp_path)


def test_a_password_in_an_address_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"^http://127\.0\.0\.1:9 does not answer"):
        open_store("http://alice:s3cret@127.0.0.1:9", tmp_path)
    uri = "postgresql://alice:s3cret@host/runs"
    with pytest.raises(TrackingError) as refused, store_errors(uri):
        raise OSError(f"no answer from {uri}")
    assert str(refused.value) == "postgresql://host/runs failed: no answer from postgresql://host/runs"


def test_a_relative_database_is_resolved_where_the_command_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    store = open_store("sqlite:///mlruns/mlflow.db", Path("elsewhere"))
    assert (store.uri, store.artifacts) == (f"sqlite:///{folder}/mlflow.db", folder / "artifacts")
    assert not Path("elsewhere").exists()


def test_a_folder_may_have_any_name(tmp_path: Path, new_database: Path) -> None:
    folder = tmp_path / "Läufe #1, 100%20?"
    folder.mkdir()
    shutil.copy(new_database, folder)
    store = open_store(None, folder)
    record = MlflowRun.create_run(store, folder, "a/b c", "mine")
    (record.artifacts / "note.txt").write_text("kept")
    record.end("FINISHED")
    assert record.undelivered is None
    (kept,) = (folder / "artifacts").rglob("note.txt")
    assert kept.read_text() == "kept"
    assert [file.path for file in store.client.list_artifacts(find_run(store, "mine").id)] == ["note.txt"]


def test_opening_a_store_does_not_choose_that_of_the_next_run(
    tmp_path: Path, new_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(new_database, tmp_path / name)
        assert open_store(None, tmp_path / name).uri == f"sqlite:///{tmp_path / name}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/one/mlflow.db")
    assert open_store(None, tmp_path / "two").uri.endswith("one/mlflow.db")
    assert os.environ["MLFLOW_TRACKING_URI"].endswith("one/mlflow.db")


def test_a_store_deleted_between_two_runs_of_one_process(folder: Path, new_database: Path) -> None:
    MlflowRun.create_run(open_store(None, folder), folder, "digits", "lost").end("FINISHED")
    shutil.rmtree(folder)
    folder.mkdir()
    shutil.copy(new_database, folder)
    MlflowRun.create_run(open_store(None, folder), folder, "digits", "kept").end("FINISHED")
    script = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT name FROM runs').fetchall())"
    command = [sys.executable, "-c", script, str(folder / "mlflow.db")]
    seen = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert seen.strip() == "[('kept',)]", "what another process finds in the file"


def test_after_a_store_was_opened_patiently_calls_give_up_soon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RETRIES, raising=False)
    with long_retries():  # as the worker of a sweep does, in a process that opened no store before
        open_store(None, folder)
        assert os.environ[RETRIES] == "6"
    assert os.environ.get(RETRIES) == "2"


def test_a_deleted_experiment(store: Store) -> None:
    store.client.delete_experiment(store.experiment_id("digits"))
    with pytest.raises(
        TrackingError, match=r"'digits' was deleted in sqlite.*; restore it .* tracking\.experiment=NAME"
    ):
        store.experiment_id("digits")


def test_the_command_line_says_it_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(b"garbage " * 1000)
    monkeypatch.setattr(sys, "argv", ["mnist_exp", "training=smoke"])
    assert cli.main() == 1
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert err == (
        f"error: {tmp_path}/mlruns/mlflow.db is damaged (file is not a database); "
        "put a backup in its place, or move it away\n"
    )


def running(store: Store, **changes: str | None) -> str:
    """The id of a run that is RUNNING, of this process but for the changes; None takes a tag away."""
    tags = {key: value for key, value in {**process_tags(), "kind": "run", **changes}.items() if value is not None}
    return store.client.create_run(store.experiment_id("digits"), tags=tags).info.run_id


def test_runs_whose_process_is_gone_are_killed(store: Store) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(timeout=60)
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    while psutil.Process(zombie.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    now = process_tags()["started"]
    runs = {
        "of this process": running(store),
        "of a process that is gone": running(store, pid=str(gone.pid)),
        "of a zombie": running(store, pid=str(zombie.pid), started=str(psutil.Process(zombie.pid).create_time())),
        "of an earlier process of this number": running(store, started=str(float(now) - 3600), start_ticks="1"),
        "of another host": running(store, host="elsewhere", pid=str(gone.pid)),
        "of another program": running(store, host=None, pid=None, started=None, kind=None),
        "of another program that tags its host": running(store, pid=None, started=None, kind=None),
        "with unreadable tags": running(store, pid="many"),
    }
    end_dead_runs(store)
    zombie.wait(timeout=60)
    found = {name: fetch_run(store, run_id) for name, run_id in runs.items()}
    dead = {name for name, run in found.items() if run.status == "KILLED"}
    assert dead == {
        "of a process that is gone",
        "of a zombie",
        "of an earlier process of this number",
        "with unreadable tags",
    }
    assert {name for name, run in found.items() if "ended_by" in run.tags} == dead
    assert all(found[name].ended for name in dead)
    assert {run.status for name, run in found.items() if name not in dead} == {"RUNNING"}
