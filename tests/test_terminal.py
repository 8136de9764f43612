import fcntl
import functools
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mnist_exp import terminal as module
from mnist_exp.config.compose import compose
from mnist_exp.config.schema import Training
from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.splits import Splits
from mnist_exp.experiment import Result
from mnist_exp.log import chatter_in_log
from mnist_exp.terminal import Terminal
from mnist_exp.tracking.sqlite import uri_of

METRICS = {"loss": 0.0581, "val_loss": 0.1715, "accuracy": 0.984, "val_accuracy": 0.924}
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
Made = tuple[Terminal, io.StringIO]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Made]:
    """A Terminal of 80 columns and what it writes: True for one that moves, False for a log."""

    def made(interactive: bool) -> Made:
        written = io.StringIO()
        console = functools.partial(
            Console, file=written, width=80, force_terminal=interactive, force_interactive=interactive
        )
        monkeypatch.setattr(module, "Console", console)
        return Terminal(), written

    return made


@pytest.fixture
def log(make: Callable[[bool], Made]) -> Made:
    return make(False)


@pytest.fixture
def screen(make: Callable[[bool], Made]) -> Made:
    return make(True)


def settings(**changed: Any) -> Training:
    return Training(**{**compose([])[0].training, **changed})


def splits(description: str) -> Splits:
    part = ImageSet(np.zeros((3, 28, 28, 1), np.uint8), np.arange(3))
    return Splits("digits", part, part, part, ("a", "b", "c"), description, "0" * 64)


def result(**changed: Any) -> Result:
    numbers = {"accuracy": 0.95, "accuracy_low": 0.9, "accuracy_high": 1.0, "macro_f1": 0.94, "loss": 0.2}
    values: dict[str, Any] = {
        "name": "mlp-adam-s0",
        "run_id": "0123456789abcdef",
        "metrics": {f"{split}/{key}": value for split in ("val", "test") for key, value in numbers.items()},
        "history": {"loss": [0.3, 0.2], "accuracy": [0.9, 0.95]},
        "used_epoch": 2,
        "parameters": 10,
        "class_names": ("a", "b"),
        "seconds": {"data": 1.0, "training": 2.0},
        "uri": uri_of(Path("mlruns/mlflow.db").resolve()),
    }
    return Result(**{**values, **changed})


def model(parameters: int = 109_386) -> Any:
    return SimpleNamespace(name="mlp", count_params=lambda: parameters)


def story(terminal: Terminal, differing: list[str], epochs: int = 12) -> None:
    with terminal.cleared():
        terminal.data(splits("digits, 1,797 images shipped with scikit-learn; dataset=mnist for MNIST"))
        terminal.model(model(), settings(epochs=epochs), lambda: differing)
        for epoch in range(1, 4):
            terminal.step(epoch, 1, 2)
            terminal.epoch(epoch, METRICS)
        terminal.evaluating()
    terminal.result(result())


def shown(written: str) -> list[str]:
    """The lines that passed over the screen, without colours and movements of the cursor."""
    return re.split(r"[\r\n]+", ANSI.sub("", written))


def test_a_log_tells_the_story_in_plain_lines(log: Made) -> None:
    terminal, written = log
    story(terminal, [])
    lines = written.getvalue().splitlines()
    assert lines[:5] == [
        "data     digits, 1,797 images shipped with scikit-learn; dataset=mnist for MNIST",
        "         3 train, 3 validation, 3 test; 28x28 grey, 3 classes",
        "differs  nothing from the defaults",
        "model    mlp, 109,386 parameters",
        "training 12 epochs, batch 32",
    ]
    assert lines[5].startswith("epoch 1/12  loss 0.0581, val 0.1715  accuracy 98.40%, val 92.40%  ")
    assert lines[9].split() == ["accuracy", "95%", "interval", "macro", "F1", "loss"]
    assert re.fullmatch(r"validation +95\.00% +90\.00% - 100\.00% +0\.9400 +0\.2000", lines[10])
    assert re.fullmatch(r"test +95\.00% +90\.00% - 100\.00% +0\.9400 +0\.2000", lines[11])
    assert lines[13:] == [
        "run      mlp-adam-s0 (01234567)",
        "time     3.0 s, 2.0 s of it training 2 epochs",
        "open     python -m mnist_exp ui",
    ]


def test_a_log_holds_no_control_characters_and_80_columns(log: Made) -> None:
    terminal, written = log
    story(terminal, [f"model.some_key_{number}={number}" for number in range(40)], epochs=200)
    assert re.search(r"[^\x20-\x7e\n]", written.getvalue()) is None
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line != line.rstrip()]


def test_what_differs_is_wrapped_between_its_parts(log: Made) -> None:
    terminal, written = log
    differing = [f"model.some_key_{number}=[[{number},{number}]]" for number in range(10)]
    terminal.model(model(), settings(), lambda: differing)
    lines = written.getvalue().split("model    mlp")[0].splitlines()
    assert len(lines) > 3
    assert lines[0].startswith("differs  model.some_key_0=")
    assert {line[:9] for line in lines[1:]} == {" " * 9}
    assert " ".join(line[9:] for line in lines) == ", ".join(differing)


def test_a_long_path_is_not_broken(log: Made) -> None:
    terminal, written = log
    path = "/somewhere" * 12 + "/mine-and-yours.npz"
    terminal.data(splits(f"npz, 3 images, from {path}"))
    assert path in written.getvalue()


def test_one_epoch_is_no_epochs(log: Made) -> None:
    terminal, written = log
    terminal.model(model(), settings(epochs=1), list)
    terminal.result(result(history={"loss": [0.3]}, used_epoch=1))
    assert "training 1 epoch, batch 32" in written.getvalue()
    assert "2.0 s of it training 1 epoch\n" in written.getvalue()


def test_weights_of_an_earlier_epoch_are_named(log: Made) -> None:
    terminal, written = log
    terminal.result(result(used_epoch=1))
    assert "training 2 epochs, weights of epoch 1" in written.getvalue()


def test_colour_images_and_repeated_ones_are_named(log: Made) -> None:
    terminal, written = log
    part = ImageSet(np.zeros((3, 8, 8, 3), np.uint8), np.arange(3))
    repeated = {"train and validation": 1234}
    terminal.data(Splits("mine", part, part, part, ("a", "b", "c"), "mine", "0" * 64, repeated))
    assert "8x8 colour, 3 classes" in written.getvalue()
    assert "1,234 identical images in train and validation" in written.getvalue()


@pytest.mark.parametrize(
    ("uri", "command"),
    [
        ("sqlite:////data/runs/mlflow.db", "python -m mnist_exp ui --uri sqlite:////data/runs/mlflow.db"),
        ("sqlite:////my%20data/mlflow.db", "python -m mnist_exp ui --uri sqlite:////my%20data/mlflow.db"),
        ("http://tracker:5000", "http://tracker:5000"),
        ("https://me:secret@tracker", "https://tracker"),
        ("postgresql://me:secret@host/runs", "python -m mnist_exp ui --uri postgresql://host/runs"),
    ],
)
def test_the_command_opens_the_store_the_run_is_in(uri: str, command: str, log: Made) -> None:
    terminal, written = log
    terminal.result(result(uri=uri))
    assert written.getvalue().splitlines()[-1] == f"open     {command}"


def test_a_run_without_tracking_has_nothing_to_open(log: Made) -> None:
    terminal, written = log
    terminal.result(result(run_id=None, uri=None))
    assert "run      mlp-adam-s0, not tracked\n" in written.getvalue()
    assert "open" not in written.getvalue()


def test_trouble_is_the_last_word(log: Made) -> None:
    terminal, written = log
    terminal.result(result(undelivered="mlruns/running/x"))
    words = " ".join(written.getvalue().split())
    assert words.endswith(
        "warning the tracking store failed during the run; everything that the run logged is kept in mlruns/running/x"
    )


@pytest.mark.parametrize(("status", "word"), [(130, "interrupted"), (143, "terminated")])
def test_a_stopped_run_says_how_it_goes_on(status: int, word: str, log: Made) -> None:
    terminal, written = log
    record: Any = SimpleNamespace(id="0123456789abcdef", name="mlp-adam-s0", resumable=True, undelivered=None)
    terminal.record(record)
    assert terminal.stopped(status) == status
    assert written.getvalue().splitlines() == [
        f"stopped  {word}",
        "run      mlp-adam-s0 (01234567) is recorded as KILLED",
        "go on    python -m mnist_exp training.resume=01234567",
    ]


def test_a_screen_shows_a_bar_that_fits(screen: Made) -> None:
    terminal, written = screen
    story(terminal, ["model=cnn"], epochs=200)
    lines = shown(written.getvalue())
    bars = [line for line in lines if "━" in line]
    assert any(line.startswith("epoch 0/200 ") and "compiling" in line for line in bars)
    assert any("loss 0.0581  val 92.40%" in line for line in bars)
    assert max(map(len, lines)) <= 80
    assert not any("accuracy 98.40%" in line for line in lines)  # the plain lines of a log


def test_a_bar_is_gone_when_the_story_is_over(screen: Made) -> None:
    terminal, written = screen
    with terminal.cleared():
        terminal.model(model(), settings(), list)
    written.truncate(0)
    terminal.result(result())
    assert "━" not in written.getvalue()


def test_libraries_keep_their_own_standard_error_while_something_moves(screen: Made) -> None:
    terminal, _ = screen
    before = sys.stderr
    with terminal.cleared():
        terminal.data(splits("digits"))
        assert sys.stderr is before
        terminal.model(model(), settings(), list)
        assert sys.stderr is before


def test_chatter_goes_to_the_log_until_the_block_ends(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with chatter_in_log() as chatter:
        os.write(2, b"early\n")
        chatter.move_to(tmp_path / "run.log")
        os.write(2, b"late\n")
        subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write('child\\n')"], check=True)
    os.write(2, b"error\n")
    assert (tmp_path / "run.log").read_text().splitlines() == ["early", "late", "child"]
    assert capfd.readouterr().err == "error\n"


def test_chatter_before_a_failure_does_not_hide_it(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with chatter_in_log():
            os.write(2, b"chatter\n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    os.write(2, b"error\n")
    assert capfd.readouterr().err == "error\n"


def test_a_run_in_a_real_terminal_of_80_columns(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm"} | {"COLUMNS": "80", "LINES": "40"}
    command = [sys.executable, "-m", "mnist_exp", "training=smoke", "export=mnist.h5"]
    running = subprocess.Popen(command, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    raw = b""
    try:
        while chunk := os.read(ours, 65536):
            raw += chunk
    except OSError:  # Linux says so at the end
        pass
    assert running.wait(timeout=180) == 0
    os.close(ours)
    lines = shown(raw.decode())
    assert max(map(len, lines)) <= 80
    assert any("━" in line for line in lines)
    assert any("loading the libraries" in line for line in lines)
    ends = [line for line in lines if re.match(r"(validation|test) +\d+\.\d\d% ", line)]
    assert len(ends) == 2
    first_words = {line.split()[0] for line in lines if line and line[0].isalpha()}
    labels = {"data", "differs", "model", "training", "epoch", "validation", "test", "fitted", "run", "time", "open"}
    assert first_words <= labels | {"accuracy"}, first_words  # nothing of TensorFlow's, absl's or Keras's
