import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from mnist_exp.sweep.executors import dask
from mnist_exp.tracking import environment


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "PACKAGE", tmp_path)  # the checkout of the tests may have changes
    (tmp_path / "artifacts").mkdir()
    return tmp_path / "artifacts"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one commit, where the command is started."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "net.py").write_text("width = 1\n")
    who = ("-c", "user.name=me", "-c", "user.email=me@here", "-c", "commit.gpgsign=false")
    for command in (("init", "--quiet"), ("add", "net.py"), (*who, "commit", "--quiet", "-m", "first")):
        subprocess.run(("git", *command), check=True, timeout=60)
    return folder


def test_a_clean_repository(repository: Path, artifacts: Path) -> None:
    tags = environment.collect_tags(artifacts)
    head = subprocess.run(("git", "rev-parse", "HEAD"), capture_output=True, text=True, check=True).stdout.strip()
    assert (tags["mlflow.source.git.commit"], tags["git.dirty"]) == (head, "false")
    assert list(artifacts.iterdir()) == []


def test_an_uncommitted_change_is_kept(repository: Path, artifacts: Path) -> None:
    (repository / "net.py").write_text("width = 2  # größer\n", encoding="utf-8")
    assert environment.collect_tags(artifacts)["git.dirty"] == "true"
    diff = (artifacts / "git.diff").read_text(encoding="utf-8")
    assert "-width = 1" in diff
    assert "+width = 2  # größer" in diff


def test_a_new_file_makes_it_dirty_too(repository: Path, artifacts: Path) -> None:
    (repository / "other.py").touch()
    assert environment.collect_tags(artifacts)["git.dirty"] == "true"
    assert not (artifacts / "git.diff").exists()


def test_outside_a_repository_or_without_git(tmp_path: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert not {"git.dirty", "mlflow.source.git.commit"} & environment.collect_tags(artifacts).keys()
    monkeypatch.setenv("PATH", "")
    assert not {"git.dirty", "mlflow.source.git.commit"} & environment.collect_tags(artifacts).keys()


def test_the_code_of_the_package_is_recorded_apart_from_the_current_folder(
    repository: Path, tmp_path: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "PACKAGE", repository / "site-packages")  # of an environment inside the repository
    (repository / "site-packages").mkdir()
    (repository / "site-packages" / "__init__.py").touch()
    tags = environment.collect_tags(artifacts)
    assert (tags["code.version"], tags["version.mnist_exp"]) == (version("mnist_exp"),) * 2
    assert not {"code.commit", "code.dirty"} & tags.keys()
    subprocess.run(("git", "add", "site-packages"), check=True, timeout=60)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    tags = environment.collect_tags(artifacts)
    assert len(tags["code.commit"]) == 40
    assert tags["code.dirty"] == "true"
    assert not {"git.dirty", "mlflow.source.git.commit"} & tags.keys()


def test_who_started_what(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/bin/mnist-exp", "name=a b", "seed=1"])
    monkeypatch.setenv("LOGNAME", "me")
    tags = environment.collect_tags(artifacts)
    assert (tags["command"], tags["mlflow.user"]) == ("mnist-exp 'name=a b' seed=1", "me")
    monkeypatch.setattr(sys, "argv", ["/opt/mnist_exp/__main__.py", "seed=1"])
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**30)
    tags = environment.collect_tags(artifacts)
    assert (tags["command"], tags["mlflow.user"]) == ("python -m mnist_exp seed=1", "unknown")


def test_versions_and_hardware(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", (*environment.PACKAGES, "none-such"))
    tags = environment.collect_tags(artifacts)
    assert tags["version.python"] == platform.python_version()
    assert tags["version.tensorflow"] == version("tensorflow")
    assert tags["version.none-such"] == "not installed"
    assert 1 <= int(tags["hardware.cores"]) <= psutil.cpu_count()
    assert int(tags["hardware.memory_gb"]) == round(psutil.virtual_memory().total / 2**30)
    assert tags["hardware.gpus"]
    assert tags["hardware.cpu"]
    assert all(isinstance(value, str) for value in tags.values())


def test_the_cores_are_known_where_the_system_tells_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert environment.usable_cores() == 6
    assert dask._threads(beside=3) == 2
