"""Passwords and tokens reach nothing that is kept or printed."""

import os
import tempfile
from collections.abc import Collection
from pathlib import Path

import processes
import pytest
from services import Dask, Mlflow, Postgres

from mnist_exp import secrets
from mnist_exp.config.compose import compose
from mnist_exp.config.run_config import BaseConfig, RunConfig, plain
from mnist_exp.errors import ConfigError, Problem

CANARY = "c4nary-s3cret"
SERVER = f"http://alice:{CANARY}@127.0.0.1:1"


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (secrets.USER, secrets.PASSWORD, secrets.TOKEN):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(secrets, "_addresses", set())
    monkeypatch.setattr(secrets, "_moved", {})


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"at {SERVER}/api: refused", "at http://127.0.0.1:1/api: refused"),
        (f"postgresql+psycopg://a:{CANARY}@h/db", "postgresql+psycopg://h/db"),
        (f"postgresql://h/db?user=a&password={CANARY}&x=1", "postgresql://h/db?user=a&password=***&x=1"),
        (f"https://h?access_token={CANARY}", "https://h?access_token=***"),
        (f"tracking.uri='http://a:p@{CANARY}@h'", "tracking.uri='http://h'"),
        ("models:/mnist_exp@champion", "models:/mnist_exp@champion"),
        ("optimizer@opt=adam //x", "optimizer@opt=adam //x"),
    ],
)
def test_addresses_in_a_text(text: str, hidden: str) -> None:
    assert secrets.hide(text) == hidden


def test_a_secret_that_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets.remember("postgresql://a:p%40ss-word@h/db")
    assert secrets.hide("p@ss-word or p%40ss-word") == "*** or ***"
    monkeypatch.setenv(secrets.TOKEN, CANARY)
    assert secrets.hide(f"Bearer {CANARY}") == "Bearer ***"


def test_credentials_of_a_server_move_to_the_environment_and_leave_it_for_another() -> None:
    assert secrets.move_credentials("http://al%40ice:p%2Fw@h:5000/x") == "http://h:5000/x"
    assert (os.environ[secrets.USER], os.environ[secrets.PASSWORD]) == ("al@ice", "p/w")
    assert secrets.with_credentials("http://h:5000/x") == "http://al%40ice:p%2Fw@h:5000/x"
    assert secrets.move_credentials("http://other:5000") == "http://other:5000"
    assert secrets.PASSWORD not in os.environ
    assert secrets.with_credentials("http://other:5000") == "http://other:5000"


def test_a_config_is_recorded_without_them() -> None:
    composed = compose(["dataset=digits", f"tracking.uri='{SERVER}'"])
    config = RunConfig(plain(composed.config), composed.choices)
    assert config.recorded["tracking"]["uri"] == "http://127.0.0.1:1"
    assert CANARY not in config.to_yaml() + str(BaseConfig.from_composed(composed).to_record())
    assert config.values["tracking"]["uri"] == SERVER  # the program itself can connect
    assert CANARY not in str(ConfigError(Problem("tracking.uri", "must answer", SERVER)))


@pytest.mark.parametrize("arguments", [["--cfg", "job"], ["--help"], [], ["-m", "seed=0,1"]])
def test_the_terminal_shows_none(run_main, arguments: list[str]) -> None:
    status, out, err = run_main(*arguments, f"tracking.uri='{SERVER}'")
    assert CANARY not in out + err
    assert ("127.0.0.1:1" in out + err) or status == 0


def test_nothing_that_is_kept_holds_one(run_main, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A net writes the password to standard error and fails with it."""
    monkeypatch.setenv(secrets.PASSWORD, CANARY)
    (home / "leak.py").write_text(
        "import os\n\ndef net(image_shape, classes):\n"
        "    secret = os.environ['MLFLOW_TRACKING_PASSWORD']\n"
        "    os.write(2, secret.encode())\n    raise ValueError(secret)\n"
    )
    net = ("dataset=digits", "dataset.size=8", "training.epochs=1", "model=custom", "model._target_=leak.net")
    with pytest.raises(ValueError, match=CANARY):  # printed by sys.excepthook, which hides it
        run_main(*net)
    status, out, err = run_main("-m", *net, "seed=0,1")
    assert status == 1
    assert CANARY not in out + err
    for path in home.rglob("*"):
        if path.is_file() and path.name != "leak.py":
            assert CANARY.encode() not in path.read_bytes(), path


def assert_kept_nowhere(*folders: Path, but: Collection[str] = ()) -> None:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name not in but]
    assert len(files) > 10
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


@pytest.mark.servers
def test_a_sweep_on_a_server_with_a_login(tmp_path: Path) -> None:
    """Every process logs in, whether it inherits the environment or not, and no file or line holds the password.

    What was downloaded for a while leaves no temporary file.
    """
    home, workers, server_folder = folders = [tmp_path / name for name in ("home", "workers", "server")]
    temporary = tmp_path / "temporary"
    for folder in (*folders, temporary):
        folder.mkdir()
    database = f"sqlite:///{server_folder}/mlflow.db"
    with Mlflow(server_folder, database, login=("alice", CANARY)) as server, Dask(workers) as dask:
        dask.add()
        address = server.uri.replace("//", f"//alice:{CANARY}@")
        keys = ["dataset=digits", "training=smoke", "model.widths=[4],[8]", "sweep.sampler=random"]
        local, on_dask = ["executor=local", "executor.workers=2"], ["executor=dask", f"executor.address={dask.address}"]
        variables = {"TMPDIR": str(temporary)}
        first = ["-m", *keys, "sweep.max_trials=1", *local, f"tracking.uri='{address}'"]
        done = [processes.run(*first, cwd=home, environment=variables)]
        assert done[0].returncode == 0, done[0].stdout + done[0].stderr
        resume = ["-m", "sweep.resume=latest", "sweep.max_trials=2", *on_dask]
        for words in (resume, ["compare"], ["promote", "best", "--force"]):
            done.append(processes.run(*words, cwd=home, environment=variables | {"MLFLOW_TRACKING_URI": address}))
            assert done[-1].returncode == 0, done[-1].stdout + done[-1].stderr
        assert list(temporary.iterdir()) == []
        variables = {"MLFLOW_TRACKING_URI": server.uri, secrets.USER: "alice", secrets.PASSWORD: f"{CANARY}-wrong"}
        refused = processes.run("compare", cwd=home, environment=variables)
    assert (refused.returncode, refused.stdout, "Traceback" in refused.stderr) == (1, "", False)
    assert not [one for one in (*done, refused) if CANARY in one.stdout + one.stderr]
    assert_kept_nowhere(*folders, but={"login.ini"})


@pytest.mark.servers
def test_a_sweep_with_a_password_for_postgresql(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # PostgreSQL runs as another user
        with Postgres(Path(folder)) as database:
            address = database.uri.replace("mlflow@", f"mlflow:{CANARY}@")
            home = tmp_path / "home"
            home.mkdir()
            keys = ["dataset=digits", "training=smoke", "model.widths=[4],[8]", "executor=local", "executor.workers=2"]
            done = [processes.run("-m", *keys, f"tracking.uri='{address}'", cwd=home)]
            done.append(processes.run("compare", "--uri", address, cwd=home))
            assert [one.returncode for one in done] == [0, 0], [one.stdout + one.stderr for one in done]
    assert not [one for one in done if CANARY in one.stdout + one.stderr]
    assert_kept_nowhere(tmp_path)
