"""Every command of the tutorials, as the reader runs it: in an empty folder, with the installed wheel, but shorter."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from test_wheel import installed, wheel  # noqa: F401

pytestmark = pytest.mark.slow
TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
TRAINS = re.compile(r"^python -m mnist_exp (-m |[a-z]+=|[a-z_.]+=)")
SHORTER = "training.epochs=2 training.batches=12"


def commands(page: str) -> list[str]:
    lines = (TUTORIALS / page).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    return [line.strip() for line in lines if line.startswith("    ")]


def shorten(line: str) -> str:
    """The same command with less work. What Keras would download is replaced by random weights."""
    if not TRAINS.match(line):
        return line
    more = [SHORTER]
    if "mnist_exp -m " in line and "seed=" not in line:
        more.append("sweep.max_trials=2")
    if "model=pretrained" in line:
        more.append("model.weights=null")
    return " ".join([line, *more])


def kaggle(folder: Path) -> None:
    digits = load_digits()
    tiles = [Image.fromarray((tile * 15).astype(np.uint8)).resize((28, 28)) for tile in digits.images[:300]]
    rows = [[label, *np.asarray(tile).ravel()] for label, tile in zip(digits.target, tiles, strict=False)]
    header = ["label", *(f"pixel{place}" for place in range(784))]
    for name, first in (("train.csv", 0), ("test.csv", 1)):  # the second without the labels
        lines = [",".join(map(str, row[first:])) for row in (header, *rows)]
        (folder / name).write_text("\n".join(lines) + "\n")


def photos(folder: Path) -> None:
    shutil.copy(TUTORIALS / "make_photos.py", folder)


@pytest.mark.parametrize(
    ("page", "prepare"),
    [("kaggle.md", kaggle), ("photos.md", photos), ("idea.md", lambda folder: None)],
    ids=["kaggle", "photos", "idea"],
)
def test_every_command_works(page: str, prepare, installed: Path, tmp_path: Path) -> None:  # noqa: F811
    prepare(tmp_path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MNIST_EXP"))}
    environment |= {"PATH": f"{installed}{os.pathsep}{environment['PATH']}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    folder, ran = tmp_path, 0
    for line in commands(page):
        if line.startswith("cd "):
            folder /= line.removeprefix("cd ")
            continue
        if line.endswith(" ui"):
            continue  # tests/commands/test_ui.py starts it
        done = subprocess.run(
            ["bash", "-c", shorten(line)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        refused = " promote " in line and done.returncode == 1 and "error" not in done.stderr
        assert done.returncode == 0 or refused, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        ran += 1
    assert ran >= 6
    if page == "kaggle.md":
        lines = (tmp_path / "submission.csv").read_text().splitlines()
        assert lines[0] == "ImageId,Label"
        assert [line.partition(",")[0] for line in lines[1:]] == [str(number) for number in range(1, 301)]
