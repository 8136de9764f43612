"""The figures of a run are drawn by two processes, and by one if the other is not there."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.splits import Splits
from mnist_exp.evaluation.figure_process import FigureProcess
from mnist_exp.evaluation.figures import draw_figures
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.evaluation.network import Box, Network
from mnist_exp.evaluation.run_files import RunResults

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks safely")


@pytest.fixture
def results() -> RunResults:
    generator = np.random.default_rng(0)
    train, validation, test = (
        ImageSet(generator.integers(0, 256, (12, 8, 8, 1), np.uint8), np.arange(12, dtype=np.int64) % 3)
        for _ in range(3)
    )
    splits = Splits("shapes", train, validation, test, ("a", "b", "c"), "12 shapes", "digest")
    evaluations = {
        name: Evaluation(part.labels, generator.dirichlet([1, 1, 1], 12).astype(np.float32), splits.class_names)
        for name, part in splits.scored.items()
    }
    epoch = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.1, "val_accuracy": 0.4}
    network = Network("net", 9, [Box("Dense", ["relu"], "3", 9, [])])
    return RunResults("summary", network, splits, History([epoch, epoch], 2), evaluations)


@pytest.fixture(autouse=True)
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a run begins on a machine with two cores: tests before this one have loaded TensorFlow."""
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr("threading.active_count", lambda: 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    return tmp_path


def drawn(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def wait_until_ready(figures: FigureProcess) -> None:
    assert figures._process is not None
    assert figures._connection.poll(30)


def kill(figures: FigureProcess) -> None:
    wait_until_ready(figures)
    assert figures._process is not None
    assert figures._process.pid is not None
    os.kill(figures._process.pid, signal.SIGKILL)
    figures._process.join()


def expected(folder: Path, results: RunResults) -> dict[str, bytes]:
    assert len(draw_figures(folder, results)) == 8
    return drawn(folder)


@linux
@pytest.mark.parametrize("before", [wait_until_ready, lambda figures: None, kill], ids=["ready", "at once", "killed"])
def test_every_figure_is_drawn(before: Callable[[FigureProcess], None], results: RunResults, folder: Path) -> None:
    with FigureProcess(results.splits) as figures:
        before(figures)
        figures.begin(folder / "two", results)
        figures.finish()
    assert drawn(folder / "two") == expected(folder / "one", results)
    assert not multiprocessing.active_children()


@linux
def test_the_process_draws_its_part(results: RunResults, folder: Path) -> None:
    with FigureProcess(results.splits) as figures:
        wait_until_ready(figures)
        figures.begin(folder, results)
        assert figures._process is not None
        figures._process.join()
        assert figures._process.exitcode == 0
        assert len(drawn(folder)) == 5


@linux
def test_what_the_process_could_not_draw_is_drawn_here(
    results: RunResults, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getpid()

    def draw_here_only(*arguments: object) -> list[str]:
        if os.getpid() != parent:
            raise MemoryError
        return draw_figures(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("mnist_exp.evaluation.figures.draw_figures", draw_here_only)
    with FigureProcess(results.splits) as figures:
        wait_until_ready(figures)
        figures.begin(folder / "two", results)
        figures.finish()
    assert drawn(folder / "two") == expected(folder / "one", results)


@linux
def test_an_error_of_the_run_ends_the_process(results: RunResults) -> None:
    def fail() -> None:
        with FigureProcess(results.splits) as figures:
            wait_until_ready(figures)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not multiprocessing.active_children()


@linux
def test_the_process_ends_with_a_killed_parent(results: RunResults) -> None:
    """In a process of its own, which says who draws and is then killed."""
    reader, writer = os.pipe()
    if not (parent := os.fork()):
        figures = FigureProcess(results.splits)
        assert figures._process is not None
        os.write(writer, str(figures._process.pid).encode())
        time.sleep(60)
        os._exit(0)
    child = int(os.read(reader, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("name", "value"), [("os.sched_getaffinity", {0}), ("threading.active_count", 2)])
def test_one_core_and_a_second_thread_draw_alone(
    name: str, value: object, results: RunResults, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name, lambda *pid: value, raising=False)
    with FigureProcess(results.splits) as figures:
        assert figures._process is None
        figures.begin(folder / "two", results)
        figures.finish()
    assert drawn(folder / "two") == expected(folder / "one", results)
