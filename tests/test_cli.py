import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from processes import Process, run

import mnist_exp
from mnist_exp import cli
from mnist_exp.config.compose import CONF, GROUPS, compose
from mnist_exp.errors import ConfigError
from mnist_exp.signals import INTERRUPTED, Terminated, exit_status, raise_on_signals

HEAVY = {"tensorflow", "keras", "keras_tuner", "mlflow"}
NET = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def net(image_shape: tuple[int, int, int], classes: int, *, width: int) -> "keras.Model":
    import keras
    from keras import layers

    inputs = keras.Input(image_shape)
    x = layers.Dense(width, "relu")(layers.Flatten()(layers.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, layers.Dense(classes, "softmax")(x), name="my_own")
"""
Main = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Process]:
    """Two short runs of a model of the user's own, by one command, and the folder they ran in."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "my_net.py").write_text(NET)
    own = ["model=custom", "model._target_=my_net.net", "+model.width=8"]
    return folder, run(
        "-m", "hydra/sweeper=basic", "tracking=off", "training=smoke", *own, "optimizer=adam,sgd", cwd=folder
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]], ids=str)
def test_help_and_config_load_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "mnist_exp", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert "hydra" in imported
    assert {name for name in imported if name.partition(".")[0] in HEAVY} == set()
    assert not list(tmp_path.iterdir())


def test_help_names_every_group_and_command_in_80_columns(run_main: Main) -> None:
    status, out, err = run_main("--help")
    assert (status, err) == (0, "")
    for group in GROUPS:
        assert re.search(rf"^{group}: \w", out, re.MULTILINE)
    for path in CONF.glob("*/*.yaml"):
        assert re.search(rf"\b{path.stem}\b", out)
    for command in cli.COMMANDS:
        assert re.search(rf"^ +{command} +\w", out, re.MULTILINE)
    assert "training:\n  epochs: 12" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_reader_that_has_seen_enough_gets_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m mnist_exp --help | head -n 1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("Train an image classifier")
    assert done.stderr == ""


def test_cfg_job_prints_the_config_that_a_run_gets(run_main: Main) -> None:
    status, out, err = run_main("--cfg", "job", "experiment=cnn_adadelta", "seed=3")
    assert (status, err) == (0, "")
    assert OmegaConf.create(out) == compose(["experiment=cnn_adadelta", "seed=3"]).config


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["training.epohcs=3"], ["training.epohcs does not exist; did you mean training.epochs?"]),
        (
            ["model=cmn"],
            ["model must be one of cnn, custom, mlp, pretrained, resnet, but got 'cmn'; did you mean cnn?"],
        ),
        (
            ["dataset.path=x"],
            ["dataset.path does not exist in this config; use it with dataset=csv, dataset=fashion_mnist, "],
        ),
        (["training"], ["training is neither a command nor KEY=VALUE; the commands are compare, completion, demo, "]),
        (["comapre"], ["comapre is neither a command nor KEY=VALUE; did you mean compare?"]),
        (["model.widths=128,64"], ["model.widths takes one value, but got '128,64'; 'model.widths=[128,64]' is one"]),
        (
            ["training.epochs=ten", "model.dropout=1.5"],
            ["model.dropout must be less than 1, but got 1.5", "training.epochs must be an integer, but got 'ten'"],
        ),
        (
            ["-m", "seed=-1,-2"],
            [f"the command line: seed must be at least 0, but got {seed}" for seed in (-1, -2)],
        ),
        (["-m", "optimizer=adam,sdg"], ["optimizer=sdg: optimizer must be one of "]),
        (["-m", "optimizer@opt2=adam,sgd"], ["optimizer@opt2=adam,sgd must not name a package"]),
        (["dataset=npz", "dataset.path=nowhere.npz"], ["nowhere.npz does not exist"]),
        (["training.resume=latest", "tracking=off"], ["training.resume needs the tracking store"]),
        (["training.epochs=${oc.env:NOT_SET}"], ["training.epochs cannot be resolved; "]),
        (["-m", "seed=1,2", "training.epochs=${oc.env:NOT_SET}"], ["training.epochs cannot be "]),
    ],
)
def test_each_mistake_is_a_line_without_a_traceback(arguments: list[str], said: list[str], run_main: Main) -> None:
    status, out, err = run_main(*arguments)
    assert (status, out) == (1, "")
    lines = err.splitlines()
    assert len(lines) == len(said)
    assert all(line.startswith(f"error: {words}") for line, words in zip(lines, said, strict=True)), err


def test_a_fault_of_a_net_is_not_taken_for_one_of_its_config(tmp_path: Path) -> None:
    """FOUND 2: a ValueError within a run was reported as a config that cannot be composed, without file and line."""
    (tmp_path / "bad_net.py").write_text("def net(image_shape, classes):\n    return int('3x')\n")
    done = run("model=custom", "model._target_=bad_net.net", "dataset.size=8", "tracking=off", cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot be composed" not in done.stderr
    assert 'bad_net.py", line 2, in net' in done.stderr
    assert done.stderr.splitlines()[-1] == "ValueError: invalid literal for int() with base 10: '3x'"


def test_the_version_is_ours(run_main: Main) -> None:
    assert run_main("--version") == (0, f"mnist_exp {version('mnist_exp')}\n", "")


def test_the_full_error_is_there_for_who_asks(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ.get", lambda name, default=None: "1" if name == "HYDRA_FULL_ERROR" else default)
    with pytest.raises(Exception, match=r"Could not override 'training\.epohcs'"):
        run_main("training.epohcs=3")


def test_zero_does_not_ask_for_the_full_error(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ.get", lambda name, default=None: "0" if name == "HYDRA_FULL_ERROR" else default)
    status, _, err = run_main("training.epohcs=3")
    assert (status, err) == (1, "error: training.epohcs does not exist; did you mean training.epochs?\n")


@pytest.mark.parametrize("arguments", [(), ("-m", "seed=0,1")])
def test_a_full_disk_is_a_line(arguments: tuple[str, ...], run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the report of a sweep and the figures of a run meet it, when the temporary folder has no room."""

    def full(*args: object, **keys: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    monkeypatch.setattr("mnist_exp.evaluation.run_files.write", full)
    monkeypatch.setattr("mnist_exp.sweep.report.report.write", full)
    status, _, err = run_main(*arguments, "training=smoke", "model.widths=[4]")
    assert status == 1
    assert err.endswith(
        "error: report.html cannot be written (No space left on device); make room on the disks of the current folder "
        "and of temporary files, then resume\n"
    )
    assert "Traceback" not in err


def test_an_unknown_flag_is_answered_with_the_usage(run_main: Main) -> None:
    status, out, err = run_main("--hepl")
    assert (status, out) == (2, "")
    assert "unrecognized arguments: --hepl" in err


def test_the_installed_script_finds_code_in_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "my_net.py").write_text(NET)
    script = Path(sys.executable).with_name("mnist-exp")
    own = ["model=custom", "model._target_=my_net.net", "+model.width=wide", "tracking=off"]
    done = subprocess.run([script, *own], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: model.width must be an integer, but got 'wide'\n")


def test_hydras_completion_is_replaced(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mnist_exp", "-sc", "install=bash"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    remedy = 'type eval "$(mnist-exp completion bash)", or zsh or fish instead of bash'
    assert done.stderr == f"error: -sc is Hydra's completion, which does not know the commands; {remedy}\n"


def test_a_comma_list_runs_once_with_each(sweep: tuple[Path, Process]) -> None:
    _, done = sweep
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^run +custom-(\w+)-[0-9a-f]{6}-s0, not tracked$", done.stdout, re.MULTILINE)
    assert names == ["adam", "sgd"]


def test_a_model_of_the_users_own_is_trained(sweep: tuple[Path, Process]) -> None:
    _, done = sweep
    parameters = 28 * 28 * 8 + 8 + 8 * 10 + 10
    assert f"model      my_own, {parameters:,} parameters" in done.stdout


def test_a_log_is_plain_lines_without_chatter(sweep: tuple[Path, Process]) -> None:
    _, done = sweep
    assert done.stderr == ""
    assert re.search(r"[^\x20-\x7e\n]", done.stdout) is None
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert len(re.findall(r"^epoch [12]/2  loss \d\.\d{4}, val \d\.\d{4}  accuracy \d", done.stdout, re.MULTILINE)) == 4
    rows = re.findall(r"^(validation|test) +\d+\.\d\d% +\d+\.\d\d-\d+\.\d\d% +\d", done.stdout, re.MULTILINE)
    assert rows == ["validation", "test"] * 2


def test_nothing_is_left_outside_mlruns(sweep: tuple[Path, Process]) -> None:
    folder, _ = sweep
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {"my_net.py", "mlruns"}
    kept = {path.relative_to(folder).as_posix() for path in (folder / "mlruns").rglob("*") if path.is_file()}
    assert kept <= {"mlruns/multirun/multirun.yaml"}


def test_a_run_from_python_returns_its_result_and_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = mnist_exp.run("training=smoke", "tracking=off", "model.widths=[8]", "seed=5", quiet=True)
    assert capfd.readouterr().out == ""
    assert result.run_id is None
    assert re.fullmatch(r"mlp-adam-[0-9a-f]{6}-s5", result.name)
    assert result.parameters == 28 * 28 * 8 + 8 + 8 * 10 + 10
    assert [len(values) for values in result.history.values()] == [2] * len(result.history)
    for split in ("val", "test"):
        low, accuracy, high = (result.metrics[f"{split}/accuracy{end}"] for end in ("_low", "", "_high"))
        assert 0 <= low <= accuracy <= high <= 1
    assert result.metrics["val/accuracy"] == pytest.approx(result.history["val_accuracy"][-1], abs=1e-6)


def test_a_run_from_python_refuses_as_the_command_line_does() -> None:
    with pytest.raises(ConfigError, match="did you mean cnn"):
        mnist_exp.run("model=cmn")
    with pytest.raises(ConfigError, match=r"training\.epochs must be an integer, but got 'ten'"):
        mnist_exp.run("training.epochs=ten", quiet=True)


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_is_an_exception_inside_the_block_only(name: str, status: int) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(Terminated) as stop, raise_on_signals():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
    assert exit_status(stop.value) == status
    assert str(stop.value) == name


def test_an_ignored_signal_stays_ignored() -> None:
    """As below nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raise_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_has_the_exit_status_of_a_shell() -> None:
    assert exit_status(KeyboardInterrupt()) == INTERRUPTED == 130
