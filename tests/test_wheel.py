"""The wheel behaves like the checkout: built, installed beside its dependencies alone, and run in empty folders."""

import os
import re
import subprocess
import sys
import venv
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from mnist_exp.config.compose import CONF

REPOSITORY = Path(__file__).parents[1]
BINARIES = "Scripts" if os.name == "nt" else "bin"


def run(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MNIST_EXP"))}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=180, env=environment)
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("hatchling, which builds the wheel, cannot be downloaded here")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, REPOSITORY, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel, its dependencies those of the running one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    programs = folder / BINARIES
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--no-deps", "--no-index"]
    run(*pip, wheel, cwd=folder)
    (packages,) = {path.parent for path in folder.rglob("mnist_exp/__init__.py")}
    # A path in a .pth file is searched last, and the .pth files in it, the editable install's, are not followed.
    (packages.parent / "dependencies.pth").write_text("\n".join(p for p in sys.path if p.endswith("-packages")))
    return programs


def test_the_wheel_carries_conf_sweeps_and_the_program(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (programs,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    for folder in (CONF, CONF.parent / "sweeps", CONF.parent / "mnist_exp"):
        files = [path for path in folder.rglob("*") if path.suffix in (".py", ".yaml", ".html", ".css", ".js")]
        inside = "mnist_exp" if folder.name == "mnist_exp" else f"mnist_exp/{folder.name}"
        assert files
        assert {f"{inside}/{path.relative_to(folder).as_posix()}" for path in files} <= names
    assert "mnist-exp = mnist_exp.cli:run_process" in programs
    found = Parser().parsestr(metadata)
    assert (found["Name"], found["License-Expression"]) == ("mnist_exp", "Apache-2.0")
    assert "keras" in str(found.get_all("Requires-Dist"))
    assert {name.split("/")[0] for name in names} == {
        "mnist_exp",
        "hydra_plugins",
        next(n.split("/")[0] for n in names if "dist-info" in n),
    }


def test_the_installed_package_is_the_one_that_runs(installed: Path, tmp_path: Path) -> None:
    found = run(installed / "python", "-c", "import mnist_exp; print(mnist_exp.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(installed.parent)


@pytest.mark.parametrize("arguments", [["experiment=dense_100"], ["sweeps=optimizers", "model=cnn"]], ids=str)
def test_it_composes_what_the_checkout_composes(arguments: list[str], installed: Path, tmp_path: Path) -> None:
    found = run(installed / "mnist-exp", "--cfg", "job", *arguments, cwd=tmp_path)
    assert found == run(sys.executable, "-m", "mnist_exp", "--cfg", "job", *arguments, cwd=tmp_path)
    assert "_target_: mnist_exp.models." in found
    assert not list(tmp_path.iterdir())


def test_it_helps_as_the_checkout_does(installed: Path, tmp_path: Path) -> None:
    found = run(installed / "mnist-exp", "--help", cwd=tmp_path)
    assert found == run(sys.executable, "-m", "mnist_exp", "--help", cwd=tmp_path)
    assert "sweeps: cnn, mlp, optimizers" in found


def test_it_trains_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    said = run(installed / "mnist-exp", "training=smoke", "tracking=off", cwd=tmp_path)
    assert re.search(r"^test +\d+\.\d\d% +\d+\.\d\d-\d+\.\d\d% ", said, re.MULTILINE)
    assert {path.name for path in tmp_path.iterdir()} <= {"mlruns"}


def test_it_sweeps_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    said = run(installed / "mnist-exp", "-m", "training=smoke", "seed=1,2", cwd=tmp_path)
    assert "sweep: grid, 2 trials, 1 at a time" in said
    assert re.search(r"^test +\d+\.\d\d% +\d+\.\d\d-\d+\.\d\d% ", said, re.MULTILINE)
