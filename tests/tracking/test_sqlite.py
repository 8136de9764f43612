import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from processes import at_call, call, die
from sqlalchemy import text
from sqlalchemy.engine.default import DefaultDialect

from mnist_exp.errors import TrackingError
from mnist_exp.log import hide_library_output
from mnist_exp.signals import Terminated, raise_on_signals
from mnist_exp.tracking import sqlite
from mnist_exp.tracking.active_run import STATE
from mnist_exp.tracking.find import find_run
from mnist_exp.tracking.mlflow_run import MlflowRun
from mnist_exp.tracking.sqlite import check_database, create_database, find_network_disk, move_store
from mnist_exp.tracking.store import open_store

LIGHT = """
import sys
from pathlib import Path
from mnist_exp.tracking.sqlite import create_database
create_database(Path(sys.argv[1]))
print("mlflow" in sys.modules)
"""
# A creation ends badly before this statement of SQL, before the file is moved into place, or when the disk is full.
MOMENTS = ("1", "1000", "move", "full")
# As root a file's mode forbids nothing, unless root gives up the right to pass over it.
OBEYING = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def test_twenty_processes_at_once_make_one_store(tmp_path: Path) -> None:
    database = tmp_path / "mlruns" / "mlflow.db"
    started = [call(create_and_tell, database, cwd=tmp_path) for _ in range(20)]
    assert [process.wait() for process in started] == [0] * 20, [process.stderr for process in started]
    assert sorted(process.stdout for process in started) == [""] * 19 + ["created\n"]
    assert {path.name for path in database.parent.iterdir()} == {"mlflow.db", "mlflow.lock"}
    check_database(database)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert_a_run_can_be_logged(database.parent)


def create_and_tell(database: Path) -> None:
    """Creates the store, and says whether it was this process that did."""
    at_call(SqlAlchemyStore, "__init__", 1, partial(print, "created"))()
    create_database(database)


def test_where_a_store_exists_mlflow_is_not_loaded(tmp_path: Path, new_database: Path) -> None:
    command = [sys.executable, "-c", LIGHT, str(new_database)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=True)
    assert done.stdout == "False\n"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folders of creations that ended in each of the moments, and what the last said."""
    if sys.platform == "win32":
        pytest.skip("needs fork and SIGKILL")
    root = tmp_path_factory.mktemp("interrupted")
    started = {moment: call(create_badly, root, moment, cwd=root) for moment in MOMENTS}
    ends = {moment: process.wait() for moment, process in started.items()}
    assert ends == {"1": -signal.SIGKILL, "1000": -signal.SIGKILL, "move": -signal.SIGKILL, "full": 1}
    return root, started["full"].stderr.splitlines()[-1]


def create_badly(root: Path, moment: str) -> None:
    if moment == "full":
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    elif moment == "move":
        at_call(os, "replace", 1, die)()
    else:
        at_call(DefaultDialect, "do_execute", int(moment), die)()
    create_database(root / moment / "mlflow.db")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_creation_that_ended_badly_is_done_again(interrupted: tuple[Path, str], moment: str) -> None:
    folder = interrupted[0] / moment
    assert not (folder / "mlflow.db").exists()
    assert any(path.name.startswith("mlflow.new-") for path in folder.iterdir()), "it was killed while it wrote"
    create_database(folder / "mlflow.db")
    check_database(folder / "mlflow.db")
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "mlflow.lock"}
    if moment == "move":
        assert_a_run_can_be_logged(folder)


def test_a_full_disk_is_said(interrupted: tuple[Path, str]) -> None:
    name, _, message = interrupted[1].partition(" ")
    assert name.rstrip(":").endswith("TrackingError")
    assert message.startswith(f"{interrupted[0] / 'full' / 'mlflow.db'} cannot be created (")
    assert "disk" in message
    assert message.strip().endswith("choose another folder with tracking.folder=PATH")


def assert_a_run_can_be_logged(folder: Path) -> None:
    store = open_store(None, folder)
    record = MlflowRun.create_run(store, folder, "digits", "first")
    record.log_metrics({"train/loss": 1.5}, step=1)
    record.end("FINISHED")
    run = find_run(store, "first")
    assert (run.status, run.metrics) == ("FINISHED", {"train/loss": 1.5})


def test_garbage_and_half_a_database_are_damaged(tmp_path: Path, new_database: Path) -> None:
    whole = new_database.read_bytes()
    for content in (b"not a database, but long enough to be looked at " * 100, whole[: len(whole) // 2]):
        database = tmp_path / "mlflow.db"
        database.write_bytes(content)
        with pytest.raises(TrackingError, match=r"is damaged .*; put a backup in its place, or move it away") as error:
            check_database(database)
        assert str(error.value).startswith(str(database))
        assert database.read_bytes() == content, "what can be repaired stays as it is"


def test_an_empty_file_is_no_store_of_mlflows(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.touch()
    create_database(database)  # leaves what is there alone
    with pytest.raises(TrackingError, match=r"must be a SQLite database of MLflow .*no such table.*tracking\.folder"):
        check_database(database)
    assert database.stat().st_size == 0


def test_a_store_of_another_mlflow_is_not_upgraded(tmp_path: Path, new_database: Path) -> None:
    database = Path(shutil.copy(new_database, tmp_path))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'abcdef123456'")
        connection.commit()
    with pytest.raises(TrackingError, match=r"schema of MLflow 3\.17.*, but got 'abcdef123456'; .*mlflow db upgrade"):
        check_database(database)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("abcdef123456",)


def test_a_folder_in_place_of_the_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    create_database(tmp_path / "mlflow.db")
    with pytest.raises(TrackingError, match=r"unable to open database file\); choose another folder"):
        check_database(tmp_path / "mlflow.db")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "mlruns").touch()
    with pytest.raises(
        TrackingError, match=r"mlflow\.db cannot be created .*; choose another folder with tracking\.folder"
    ):
        create_database(tmp_path / "mlruns" / "mlflow.db")


def test_a_version_that_is_no_text_is_a_line(tmp_path: Path, new_database: Path) -> None:
    database = Path(shutil.copy(new_database, tmp_path))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = CAST(x'ff' AS TEXT)")
        connection.commit()
    with pytest.raises(TrackingError, match=r"must be a SQLite database of MLflow .*Could not decode"):
        check_database(database)


def test_a_store_that_another_process_has_locked(tmp_path: Path, new_database: Path, monkeypatch) -> None:
    database = Path(shutil.copy(new_database, tmp_path))
    monkeypatch.setattr(sqlite, "PATIENCE", 1)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(TrackingError, match=r"has been locked by another process for 1 s; let that process go on"):
            check_database(database)
    check_database(database)


@pytest.mark.skipif(bool(OBEYING) and not shutil.which("setpriv"), reason="root obeys no file mode")
@pytest.mark.parametrize(
    ("function", "rule"),
    [
        ("check_database", "that can be written (attempt to write a readonly database)"),
        ("create_database", "cannot be created ([Errno 13] Permission denied"),
    ],
)
def test_a_store_that_cannot_be_written(tmp_path: Path, new_database: Path, function: str, rule: str) -> None:
    database = tmp_path / "mlflow.db"
    if function == "check_database":
        shutil.copy(new_database, database)
        database.chmod(0o444)
    else:
        tmp_path.chmod(0o555)
    script = f"import sys, pathlib; from mnist_exp.tracking.sqlite import *; {function}(pathlib.Path(sys.argv[1]))"
    try:
        done = subprocess.run(
            [*OBEYING, sys.executable, "-c", script, str(database)], capture_output=True, text=True, timeout=180
        )
    finally:
        tmp_path.chmod(0o755)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"mnist_exp.errors.TrackingError: {database} ")
    assert rule in last
    assert "tracking.folder=PATH" in last


@pytest.mark.parametrize(
    ("kind", "is_network"),
    [("nfs4", True), ("cifs", True), ("smb3", True), ("fuse.sshfs", True), ("lustre", True), ("fuse.glusterfs", True),
     ("ext4", False), ("fuseblk", False), ("overlay", False), ("apfs", False)],
)  # fmt: skip
def test_a_network_disk_is_known_by_the_mount_that_is_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_network: bool
) -> None:
    disks = [SimpleNamespace(mountpoint=str(tmp_path), fstype=kind), SimpleNamespace(mountpoint="/", fstype="ext4")]
    monkeypatch.setattr(sqlite.psutil, "disk_partitions", lambda all: disks)
    assert find_network_disk(tmp_path / "mlruns" / "mlflow.db") == (kind if is_network else None)
    assert find_network_disk(Path("/elsewhere/mlflow.db")) is None


def test_a_store_on_a_network_disk_is_warned_of_once_also_while_output_is_hidden(
    tmp_path: Path, new_database: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(new_database, tmp_path)
    monkeypatch.setattr(sqlite, "find_network_disk", lambda database: "nfs4")
    for _ in range(2):
        with hide_library_output():
            open_store(None, tmp_path)
    rule = "lies on a network disk (nfs4), where SQLite may lose what several machines write at once"
    remedy = "start an MLflow server, see docs/team.md"
    assert capfd.readouterr().err == f"warning: {tmp_path / 'mlflow.db'} {rule}; {remedy}\n"


def test_an_interrupted_run_is_resumed_from_its_folder_in_the_moved_store(tmp_path: Path, new_database: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    shutil.copy(new_database, old)
    active = MlflowRun.create_run(open_store(None, old), old, "digits", "stopped")
    (active.folder / STATE).parent.mkdir(parents=True)
    (active.folder / STATE).touch()
    active.log_tags({"mlflow.note.content": str(old / "running")})
    active.end("KILLED")
    old.rename(new)
    move_store(old, new)
    store = open_store(None, new)
    assert MlflowRun.resume_run(store, "stopped").folder == new / "running" / active.folder.name
    assert find_run(store, "stopped").tags["mlflow.note.content"] == str(old / "running")


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("part", ["_tracking_client", "_get_registry_client"])
def test_a_signal_waits_for_the_end_of_a_transaction_and_the_next_one_does_not(
    tmp_path: Path, new_database: Path, part: str
) -> None:
    shutil.copy(new_database, tmp_path)
    for _ in range(2):  # the second time MLflow has the same object
        found = getattr(open_store(None, tmp_path).client, part)
        mlflow_store = (found if part == "_tracking_client" else found()).store
    database = tmp_path / "mlflow.db"
    done = []

    def write(name: str, signals: int) -> None:
        with mlflow_store.ManagedSessionMaker(read_only=False) as session:
            session.execute(text("insert into registered_models (name) values (:name)"), {"name": name})
            for number in range(signals):
                os.kill(os.getpid(), signal.SIGTERM)
                done.append((name, number))

    for name, signals in (("a", 1), ("b", 2)):
        with pytest.raises(Terminated), raise_on_signals():
            write(name, signals)
    assert done == [("a", 0), ("b", 0)]
    with closing(sqlite3.connect(database, timeout=0)) as other:
        assert other.execute("select name from registered_models").fetchall() == [("a",)]
        other.execute("insert into registered_models (name) values ('c')")  # no lock was left
