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
from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.config.run_config import RunConfig
from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.splits import Splits
from mnist_exp.experiment import Result
from mnist_exp.log import hide_library_output
from mnist_exp.terminal import RunDisplay
from mnist_exp.tracking.sqlite import uri_of

METRICS = {"loss": 0.0581, "val_loss": 0.1715, "accuracy": 0.984, "val_accuracy": 0.924}
MANY = [
    "seed=3", "name=of-a-length-that-fills-a-line", "dataset.limit=300", "dataset.size=8", "dataset.validation=0.3",
    "model.widths=[64,32,16,8]", "model.dropout=0.25", "model.batch_norm=true", "optimizer.learning_rate=0.0123",
]  # fmt: skip
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
Made = tuple[RunDisplay, io.StringIO]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Made]:
    """A RunDisplay of 80 columns and what it writes: True for one that moves, False for a log."""

    def made(interactive: bool) -> Made:
        written = io.StringIO()
        console = functools.partial(
            Console, file=written, width=80, force_terminal=interactive, force_interactive=interactive
        )
        monkeypatch.setattr(module.rich.console, "Console", console)
        return RunDisplay(), written

    return made


@pytest.fixture
def log(make: Callable[[bool], Made]) -> Made:
    return make(False)


@pytest.fixture
def screen(make: Callable[[bool], Made]) -> Made:
    return make(True)


def config(*overrides: str) -> RunConfig:
    return check(compose(overrides))


def splits(description: str) -> Splits:
    part = ImageSet(np.zeros((3, 28, 28, 1), np.uint8), np.arange(3))
    return Splits("digits", part, part, part, ("a", "b", "c"), description, "0" * 64)


def result(**changed: Any) -> Result:
    numbers = {"accuracy": 0.95, "accuracy_low": 0.9, "accuracy_high": 1.0, "macro_f1": 0.94, "cross_entropy": 0.2}
    values: dict[str, Any] = {
        "name": "mlp-adam-s0",
        "run_id": "0123456789abcdef",
        "metrics": {f"{split}/{key}": value for split in ("val", "test") for key, value in numbers.items()},
        "history": {"loss": [0.3, 0.2], "accuracy": [0.9, 0.95]},
        "evaluations": {},
        "used_epoch": 2,
        "diverged": False,
        "parameters": 10,
        "class_names": ("a", "b"),
        "seconds": {"data": 1.0, "training": 2.0},
        "uri": uri_of(Path("mlruns/mlflow.db").resolve()),
    }
    return Result(**{**values, **changed})


def model(parameters: int = 109_386) -> Any:
    return SimpleNamespace(name="mlp", count_params=lambda: parameters)


def story(terminal: RunDisplay, *overrides: str) -> None:
    with terminal.cleared():
        terminal.on_data(splits("digits, 1,797 images shipped with scikit-learn; dataset=mnist for MNIST"))
        terminal.on_model(model(), config(*overrides))
        for epoch in range(1, 4):
            terminal.on_step(epoch, 1, 2)
            terminal.on_epoch(epoch, METRICS)
        terminal.on_evaluation()
    terminal.show_result(result())


def shown(written: str) -> list[str]:
    """The lines that passed over the screen, without colours and movements of the cursor."""
    return re.split(r"[\r\n]+", ANSI.sub("", written))


def test_a_log_tells_the_story_in_plain_lines(log: Made) -> None:
    terminal, written = log
    story(terminal)
    lines = written.getvalue().splitlines()
    assert lines[:6] == [
        "data       digits, 1,797 images shipped with scikit-learn; dataset=mnist for",
        "           MNIST",
        "           3 train, 3 validation, 3 test; 28x28 grey, 3 classes",
        "changed    nothing; all values are the defaults",
        "model      mlp, 109,386 parameters",
        "training   12 epochs, batch 32",
    ]
    assert lines[6].startswith("epoch 1/12  loss 0.0581, val 0.1715  accuracy 98.40%, val 92.40%  ")
    assert re.fullmatch(r"time +\S+ s per epoch, about \d+ s left", lines[7])
    assert lines[8].startswith("epoch 2/12")
    assert lines[11].split() == ["accuracy", "95%", "interval", "macro", "F1", "cross-entropy"]
    assert re.fullmatch(r"validation +95\.00% +90\.00-100\.00% +0\.9400 +0\.2", lines[12])
    assert re.fullmatch(r"test +95\.00% +90\.00-100\.00% +0\.9400 +0\.2", lines[13])
    assert lines[15:] == [
        "run        mlp-adam-s0 (01234567)",
        "time       3.0 s, 2.0 s of it training 2 epochs",
        "open       python -m mnist_exp ui",
    ]


def test_the_time_of_an_epoch_counts_from_the_start_of_the_training(log: Made, monkeypatch) -> None:
    terminal, written = log
    clock = iter([1000.0, 1004.0, 1006.0])  # the model is there, and the end of two epochs
    monkeypatch.setattr("mnist_exp.terminal.time.perf_counter", lambda: next(clock))
    terminal.on_model(model(), config())
    terminal.on_epoch(5, METRICS)  # of a run that was resumed
    terminal.on_epoch(6, METRICS)
    first, left, second = written.getvalue().splitlines()[-3:]
    assert first.endswith("  4 s")
    assert left == "time       4.0 s per epoch, about 28 s left"
    assert second.endswith("  6 s")


def test_a_log_holds_no_control_characters_and_80_columns(log: Made) -> None:
    terminal, written = log
    story(terminal, *MANY, "training.epochs=200")
    assert re.search(r"[^\x20-\x7e\n]", written.getvalue()) is None
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line != line.rstrip()]


def test_what_was_changed_is_wrapped_between_its_parts(log: Made) -> None:
    terminal, written = log
    terminal.on_model(model(), config(*MANY))
    lines = written.getvalue().split("model      mlp")[0].splitlines()
    assert len(lines) > 3
    assert lines[0].startswith("changed    dataset.size=8, ")
    assert {line[:11] for line in lines[1:]} == {" " * 11}
    assert set(" ".join(line[11:] for line in lines).split(", ")) == set(MANY)


def test_a_diverged_run_is_called_so(log: Made) -> None:
    terminal, written = log
    metrics = {**result().metrics, "val/cross_entropy": 2e22}
    terminal.show_result(result(diverged=True, metrics=metrics))
    lines = " ".join(written.getvalue().split())
    assert "warning the training diverged: the cross-entropy is 2e+22, that of guessing is 0.693; lower opt" in lines


def test_a_long_path_is_not_broken(log: Made) -> None:
    terminal, written = log
    path = "/somewhere" * 12 + "/mine-and-yours.npz"
    terminal.on_data(splits(f"npz, 3 images, from {path}"))
    assert path in written.getvalue()


def test_one_epoch_is_no_epochs(log: Made) -> None:
    terminal, written = log
    terminal.on_model(model(), config("training.epochs=1"))
    terminal.show_result(result(history={"loss": [0.3]}, used_epoch=1))
    assert "training   1 epoch, batch 32" in written.getvalue()
    assert "2.0 s of it training 1 epoch\n" in written.getvalue()


def test_weights_of_an_earlier_epoch_are_named(log: Made) -> None:
    terminal, written = log
    terminal.show_result(result(used_epoch=1))
    assert "training 2 epochs, weights of epoch 1" in written.getvalue()


def test_colour_images_and_repeated_ones_are_named(log: Made) -> None:
    terminal, written = log
    part = ImageSet(np.zeros((3, 8, 8, 3), np.uint8), np.arange(3))
    repeated = {"train and validation": 1234}
    terminal.on_data(Splits("mine", part, part, part, ("a", "b", "c"), "mine", "0" * 64, repeated))
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
    terminal.show_result(result(uri=uri))
    assert written.getvalue().splitlines()[-1] == f"open       {command}"


def test_a_run_without_tracking_has_nothing_to_open(log: Made) -> None:
    terminal, written = log
    terminal.show_result(result(run_id=None, uri=None))
    assert "run        mlp-adam-s0, not tracked\n" in written.getvalue()
    assert "open" not in written.getvalue()


def test_trouble_is_the_last_word(log: Made) -> None:
    terminal, written = log
    terminal.show_result(result(undelivered="mlruns/running/x"))
    words = " ".join(written.getvalue().split())
    assert words.endswith(
        "was away until the end of the run; it is kept in mlruns/running/x; deliver it with: python -m mnist_exp "
        "store deliver"
    )


@pytest.mark.parametrize(("status", "word"), [(130, "interrupted"), (143, "terminated")])
def test_a_stopped_run_says_how_it_goes_on(status: int, word: str, log: Made) -> None:
    terminal, written = log
    record: Any = SimpleNamespace(id="0123456789abcdef", name="mlp-adam-s0", resumable=True, undelivered=None)
    terminal.on_start(record)
    assert terminal.show_stop(status) == status
    assert written.getvalue().splitlines() == [
        f"stopped    {word}",
        "run        mlp-adam-s0 (01234567) is recorded as KILLED",
        "resume     python -m mnist_exp training.resume=01234567",
    ]


def test_a_screen_shows_a_bar_that_fits(screen: Made) -> None:
    terminal, written = screen
    story(terminal, "model=cnn", "training.epochs=200")
    lines = shown(written.getvalue())
    bars = [line for line in lines if "━" in line]
    assert any(line.startswith("epoch 0/200 ") and "compiling" in line for line in bars)
    assert any("loss 0.0581  val 92.40%" in line for line in bars)
    assert max(map(len, lines)) <= 80
    assert not any("accuracy 98.40%" in line for line in lines)  # the plain lines of a log


def test_a_bar_is_gone_when_the_story_is_over(screen: Made) -> None:
    terminal, written = screen
    with terminal.cleared():
        terminal.on_model(model(), config())
    written.truncate(0)
    terminal.show_result(result())
    assert "━" not in written.getvalue()


def test_libraries_keep_their_own_standard_error_while_something_moves(screen: Made) -> None:
    terminal, _ = screen
    before = sys.stderr
    with terminal.cleared():
        terminal.on_data(splits("digits"))
        assert sys.stderr is before
        terminal.on_model(model(), config())
        assert sys.stderr is before


def test_chatter_goes_to_the_log_until_the_block_ends(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with hide_library_output() as output:
        os.write(2, b"early\n")
        output.move_to(tmp_path / "run.log")
        os.write(2, b"late\n")
        subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write('child\\n')"], check=True)
    os.write(2, b"error\n")
    assert (tmp_path / "run.log").read_text().splitlines() == ["early", "late", "child"]
    assert capfd.readouterr().err == "error\n"


def test_chatter_before_a_failure_does_not_hide_it(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with hide_library_output():
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
    labels = {"data", "changed", "model", "training", "epoch", "validation", "test", "fitted", "run", "time", "open"}
    assert first_words <= labels | {"accuracy"}, first_words  # nothing of TensorFlow's, absl's or Keras's
