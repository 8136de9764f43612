"""How a run ends that does not come to its end: by a signal, by a mistake of the user's, by a bug."""

import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import start

import mnist_exp
from mnist_exp import cli
from mnist_exp.tracking.find import find_run
from mnist_exp.tracking.store import Store, open_store

ENDLESS = ("training=smoke", "training.epochs=100000", "model.widths=[8]")
SIGNALS = {"interrupted": (signal.SIGINT, 130), "terminated": (signal.SIGTERM, 143)}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SimpleNamespace]:
    """Endless trainings at work, each sent a signal, and what is left of them."""
    started = {}
    for name in SIGNALS:
        folder = tmp_path_factory.mktemp(name)
        started[name] = folder, start(*ENDLESS, f"name={name}", cwd=folder)
    for name, (_, process) in started.items():
        process.wait_for(lambda process=process: "epoch 3/100000" in process.stdout)
        process.send_signal(SIGNALS[name][0])
    left = {}
    for name, (folder, process) in started.items():
        status = process.wait()
        store = open_store(f"sqlite:///{folder}/mlruns/mlflow.db", folder)
        left[name] = SimpleNamespace(
            status=status, out=process.stdout, err=process.stderr, store=store, run=find_run(store, name)
        )
    return left


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("how", SIGNALS)
def test_a_signal_ends_a_run_as_killed(stopped: dict[str, SimpleNamespace], how: str) -> None:
    left = stopped[how]
    assert left.status == SIGNALS[how][1]
    assert left.run.status == "KILLED"
    assert left.run.tags["error"] in ("KeyboardInterrupt", "Terminated")
    said = left.out.splitlines()
    assert said[-3].split() == ["stopped", how]
    assert said[-2].split() == ["run", how, f"({left.run.id[:8]})", "is", "recorded", "as", "KILLED"]
    assert said[-1].endswith(f"python -m mnist_exp training.resume={left.run.id[:8]}")
    folder = Path(left.run.tags["folder"])
    assert (folder / "checkpoints" / "state.json").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("how", SIGNALS)
def test_the_chatter_of_libraries_is_in_the_log_and_not_in_the_terminal(
    stopped: dict[str, SimpleNamespace], how: str, tmp_path: Path
) -> None:
    left = stopped[how]
    assert left.err == ""
    labels = {line[:11].strip() for line in left.out.splitlines()} - {""}
    assert labels <= {"data", "changed", "model", "training", "stopped", "run", "resume", *epochs(left.out)}
    log = Path(left.store.client.download_artifacts(left.run.id, "run.log", str(tmp_path))).read_text()
    assert "mlflow.store.db.utils: Creating initial MLflow database tables" in log
    assert "XLA" in log
    assert "Traceback" not in left.out + log


def epochs(out: str) -> set[str]:
    return {line[:11].strip() for line in out.splitlines() if line.startswith("epoch ")}


def the_store() -> Store:
    return open_store(None, Path("mlruns").resolve())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.learning_rate=1.0e30"], "TrainingError: the loss must stay finite, but was nan in epoch 1"),
        (["model=cnn", "model.blocks=[[4],[4],[4],[4],[4]]"], "ConfigError: "),
    ],
    ids=["loss", "depth"],
)
def test_a_mistake_during_the_run_fails_it_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["mnist_exp", "training=smoke", "training.batches=30", *overrides])
    assert cli.main() == 1
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    *_, last = err.splitlines()  # pytest's standard error takes the chatter that a process would have in its log
    store = the_store()
    run = find_run(store, "latest")
    assert run.status == "FAILED"
    assert run.tags["error"].startswith(message)
    assert last == f"error: {run.tags['error'].partition(': ')[2]}"
    assert {"config.yaml", "run.log"} <= {file.path for file in store.client.list_artifacts(run.id)}
    assert not Path("mlruns/running").exists(), "without a checkpoint there is nothing to keep"


NET = """
def broken(image_shape, classes, **keys):
    return {}["no such layer"]
"""


def test_a_bug_fails_the_run_with_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_broken_nets.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyError, match="no such layer"):
        mnist_exp.run("model=custom", "model._target_=my_broken_nets.broken", "training=smoke", quiet=True)
    store = the_store()
    run = find_run(store, "latest")
    assert (run.status, run.tags["error"]) == ("FAILED", "KeyError: 'no such layer'")
    text = Path(store.client.download_artifacts(run.id, "traceback.txt", str(tmp_path))).read_text()
    assert 'my_broken_nets.py", line 3, in broken' in text
    assert text.endswith("KeyError: 'no such layer'\n")
