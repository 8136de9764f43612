"""A project of one's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_exp.cli import main


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    made = call(folder, "mnist_exp", "new", "my_project")
    assert made.returncode == 0, made.stderr
    assert "cd my_project" in made.stdout
    return folder / "my_project"


def test_it_passes_its_own_test(project: Path) -> None:
    tested = call(project, "unittest")
    assert tested.returncode == 0, tested.stderr
    assert "Ran 2 tests" in tested.stderr


def test_its_net_experiment_and_study_run(project: Path) -> None:
    short = ["training.epochs=1", "training.batches=10"]
    for arguments in (
        ["model=wide", "model.units=16", *short],
        ["experiment=focal", "training.loss.gamma=1.0", *short],
        ["-m", "sweeps=widths", "sweep.max_trials=2", *short],
        ["reproduce", "latest", "--check"],
    ):
        done = call(project, "mnist_exp", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (project / ".gitignore").read_text() == "mlruns/\n__pycache__/\n"
    assert (project / "README.md").read_text().startswith("# my_project\n")


def test_a_primary_config_of_ones_own(project: Path) -> None:
    (project / "conf/mine.yaml").write_text("defaults:\n  - config\n  - override model: wide\n  - _self_\nseed: 7\n")
    done = call(project, "mnist_exp", "--config-name=mine", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "_target_: nets.wide" in done.stdout
    assert "seed: 7" in done.stdout
    swept = call(
        project, "mnist_exp", "--config-name=mine", "-m", "model.units=8,16", "training=smoke", "sweep.name=mine"
    )
    assert swept.returncode == 0, swept.stdout + swept.stderr
    resumed = call(project, "mnist_exp", "-m", "sweep.resume=mine", "sweep.max_trials=2")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr


def test_a_choice_of_the_folder_conf_is_named_in_an_error(project: Path) -> None:
    done = call(project, "mnist_exp", "model=wid")
    assert done.returncode == 1
    assert "did you mean wide?" in done.stderr


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("taken", "already exists; choose another name"),
        ("my project", "must have a name of letters, digits, _ and -, but got 'my project'"),
        ("no/where/new", "is not a folder; create it first"),
    ],
)
def test_a_folder_that_cannot_be_used_is_answered(
    name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    monkeypatch.setattr("sys.argv", ["mnist_exp", "new", name])
    assert main() == 1
    assert line in capsys.readouterr().err
