"""How a run ends that does not come to its end: by a signal, by a mistake of the user's, by a bug."""

import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from processes import start

import mnist_exp
from mnist_exp import cli, experiment
from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.errors import TrainingError
from mnist_exp.tracking.find import find_run
from mnist_exp.tracking.store import Store, open_store
from mnist_exp.training import contract

ENDLESS = ("training=smoke", "training.epochs=100000", "model.widths=[8]", "training.program_cache=false")
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
    assert labels <= {"data", "changed", "model", "training", "stopped", "run", "resume", "time", *epochs(left.out)}
    log = Path(left.store.client.download_artifacts(left.run.id, "run.log", str(tmp_path))).read_text()
    assert re.search(r"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d,\d+ mnist_exp INFO epoch 3: accuracy 0", log, re.MULTILINE)
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


LATE = """
import os, sys
import keras

class Ending(keras.layers.Layer):
    def call(self, x, training=False):
        return sys.exit(3) if training else x

def ending(image_shape, classes):
    sys.exit(3)

def logits(image_shape, classes):
    inputs = keras.Input(image_shape)
    return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Flatten()(inputs)))

class Sealed(keras.layers.Layer):
    def get_config(self):
        if os.path.exists("sealed"):
            raise RuntimeError("sealed for ever")
        return super().get_config()

    def call(self, x):
        return x

def sealed(image_shape, classes):
    inputs = keras.Input(image_shape)
    x = keras.layers.Flatten()(Sealed()(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(x))
"""
OWN = ("model=custom", "training=smoke")


@pytest.fixture
def late_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_late_nets.py").write_text(LATE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(contract, "_load_in_new_process", lambda *args: None)


def test_logits_are_refused_before_the_first_epoch(
    late_nets: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mnist_exp", *OWN, "model._target_=my_late_nets.logits"])
    assert cli.main() == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "error: model must answer with probabilities: not negative, with a sum of 1 for each image, but"
    )
    assert last.endswith('; end the net with a softmax: keras.layers.Dense(classes, "softmax")')
    run = find_run(the_store(), "latest")
    assert (run.status, "train/loss" in run.metrics) == ("FAILED", False)
    assert not Path("mlruns/running").exists()


def test_a_net_that_ends_the_process_fails_the_run(late_nets: None, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"the code of the run ended the process: SystemExit\(3\)"):
        mnist_exp.run(*OWN, "model._target_=my_late_nets.ending", quiet=True)
    store = the_store()
    run = find_run(store, "latest")
    assert (run.status, run.tags["error"]) == ("FAILED", "SystemExit: 3")
    text = Path(store.client.download_artifacts(run.id, "traceback.txt", str(tmp_path))).read_text()
    assert 'my_late_nets.py", line 10, in ending' in text
    assert not Path("mlruns/running").exists()


def test_a_data_set_that_ends_the_process_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(config: object, data: object) -> None:
        sys.exit("no data today")

    monkeypatch.setattr(experiment, "load_splits", end)
    with pytest.raises(RuntimeError, match="SystemExit\\('no data today'\\)"):
        mnist_exp.run("training=smoke", quiet=True)


def test_a_model_that_cannot_be_stored_after_training_costs_nothing_else(late_nets: None) -> None:
    class Sealing(experiment.Listener):
        def on_evaluation(self) -> None:
            Path("sealed").touch()

    config = check(compose([*OWN, "model._target_=my_late_nets.sealed", "name=sealed"]))
    said = "the trained model cannot be stored: RuntimeError: sealed for ever; the run keeps its metrics, figures and"
    with pytest.raises(TrainingError, match=said):
        experiment.run(config, Sealing())
    store = the_store()
    run = find_run(store, "sealed")
    assert run.status == "FAILED"
    assert run.tags["error"].startswith(f"TrainingError: {said}")
    assert {"test/accuracy", "val/accuracy", "train/loss"} <= run.metrics.keys()
    assert {"predictions.npz", "figures", "reports"} <= {file.path for file in store.client.list_artifacts(run.id)}
    Path("sealed").unlink()  # mended: the checkpoint is still there
    (folder,) = Path("mlruns/running").iterdir()
    assert Path(run.tags["folder"]) == folder.resolve()
    assert mnist_exp.run(f"training.resume={run.id}", quiet=True).load_model() is not None
    assert find_run(store, "sealed").status == "FINISHED"
    assert not folder.exists()


def test_a_refused_call_is_named_at_the_end_with_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(client: MlflowClient, run_id: str, path: str) -> None:
        raise OSError(36, "File name too long")

    with monkeypatch.context() as during:
        during.setattr(MlflowClient, "log_artifacts", refuse)
        during.setattr(sys, "argv", ["mnist_exp", "training=smoke", "model.widths=[4]", "name=mine"])
        assert cli.main() == 1
    (folder,) = Path("mlruns/running").iterdir()
    said = " ".join(capfd.readouterr().out.split())
    assert "warning the store refused artifacts ([Errno 36] File name too long); it is kept in" in said
    assert said.endswith("deliver it with: python -m mnist_exp store deliver")
    run = find_run(the_store(), "mine")
    assert (run.status, "test/accuracy" in run.metrics) == ("FINISHED", True)
    monkeypatch.setattr(sys, "argv", ["mnist_exp", "store", "deliver"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (bool(end.value.code), capfd.readouterr().out) == (
        False,
        f"mine ({run.id[:8]}): 1 call delivered; the run is FINISHED\n",
    )
    assert not folder.exists()


CRASHING = """
import ctypes

def net(image_shape, classes):
    ctypes.string_at(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_crash_of_native_code_says_in_the_log_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "my_crash.py").write_text(CRASHING)
    process = start(*OWN, "model._target_=my_crash.net", cwd=tmp_path)
    assert process.wait() == -signal.SIGSEGV
    (log,) = tmp_path.glob("mlruns/running/*/run.log")
    text = log.read_text(encoding="utf-8")
    assert "Fatal Python error: Segmentation fault" in text
    assert 'my_crash.py", line 5 in net' in text
