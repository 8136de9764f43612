import contextlib
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.config.schema import Tracking
from mnist_exp.errors import TrackingError
from mnist_exp.tracking import start_run
from mnist_exp.tracking.active_run import ActiveRun, Input, Timer

# A net of the user's own, and at the end of the process a line that tells what it imported.
TELLING = """
import atexit, sys
import keras

def net(image_shape, classes):
    inputs = keras.Input(image_shape)
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(keras.layers.Flatten()(inputs)))

def tell():
    print(sorted({name.split(".")[0] for name in sys.modules} & {"mlflow", "sqlalchemy", "alembic", "tensorflow"}))

atexit.register(tell)
"""


def test_everything_is_written_down_in_order(tmp_path: Path) -> None:
    record = ActiveRun.create(tmp_path, "mine")
    record.log_params({"model": "mlp", "widths": [8]})
    record.log_tags({"host": "here"})
    record.log_input(Input("digits", "abc", "shipped", {"train": 3}))
    record.log_metrics({"train/loss": 0.5}, step=1)
    lines = [json.loads(line) for line in (record.folder / "record.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["values"]) for line in lines] == [
        ("params", {"model": "mlp", "widths": [8]}),
        ("tags", {"host": "here"}),
        ("input", {"name": "digits", "digest": "abc", "source": "shipped", "profile": {"train": 3}}),
        ("metrics", {"train/loss": 0.5, "step": 1}),
    ]
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_nothing_is_left_of_an_untracked_record(tmp_path: Path, status) -> None:
    record = ActiveRun.create(tmp_path, "mine")
    record.checkpoints.mkdir()
    (record.checkpoints / "state.json").write_text("{}")
    record.end(status)
    assert list(tmp_path.iterdir()) == []
    assert (record.resumable, record.undelivered, record.id, record.uri) == (False, None, None, None)


def test_the_end_of_the_block_sets_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[tuple[str, str]] = []
    monkeypatch.setattr(ActiveRun, "end", lambda self, status, message="": ends.append((status, message)))
    for error in (None, ValueError("it broke"), KeyboardInterrupt()):
        with contextlib.suppress(ValueError, KeyboardInterrupt), ActiveRun.create(tmp_path, "mine") as active:
            if error:
                raise error
        assert (active.artifacts / "traceback.txt").exists() == isinstance(error, ValueError)
    assert ends == [("FINISHED", ""), ("FAILED", "ValueError: it broke"), ("KILLED", "KeyboardInterrupt")]


def test_the_seconds_of_a_part_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 2.0, 10.0, 11.0, 14.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    timer = Timer()
    with timer("training"):
        pass
    with timer("training"):
        assert timer.elapsed("training") == 1
    assert timer.seconds == {"training": 6}


def test_runs_of_one_name_have_folders_of_their_own(tmp_path: Path) -> None:
    one, other = (ActiveRun.create(tmp_path, "../a b/ü" + "x" * 200) for _ in range(2))
    assert one.folder != other.folder
    assert one.folder.parent == other.folder.parent == tmp_path / "running"


def test_runs_that_begin_and_end_at_once_do_not_take_the_folder_from_each_other(tmp_path: Path) -> None:
    def begin_and_end(number: int) -> None:
        ActiveRun.create(tmp_path, f"run {number}").end("FINISHED")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin_and_end, range(400)))
    assert list(tmp_path.iterdir()) == []


def tracking(*overrides: str) -> Tracking:
    return check(compose(overrides)).settings(Tracking)


def test_a_full_disk_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 2**20))
    with pytest.raises(
        TrackingError, match=r"must have 200 MB of free space for a run, but got 5; make room.*tracking\.folder=PATH"
    ):
        start_run(tracking("tracking=off", f"tracking.folder={tmp_path}"), "mine")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "mlruns").touch()
    for choice in ("off", "mlflow"):
        with pytest.raises(TrackingError, match=rf"^{tmp_path}/mlruns.*; choose a.* with tracking\.folder=PATH"):
            start_run(tracking(f"tracking={choice}", f"tracking.folder={tmp_path}/mlruns"), "mine")


def test_an_untracked_run_never_loads_mlflow(tmp_path: Path) -> None:
    (tmp_path / "my_net.py").write_text(TELLING)
    command = [sys.executable, "-m", "mnist_exp", "model=custom", "model._target_=my_net.net"]
    smoke = ["tracking=off", "training=smoke"]
    done = subprocess.run([*command, *smoke], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['tensorflow']"
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"my_net.py", "mlruns"}
    assert not list((tmp_path / "mlruns").iterdir())
