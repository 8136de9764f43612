"""The notebook of the docs and the examples of docs/python.md, run as a reader runs them."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[1] / "docs"
NOISE = re.compile(r"tensorflow|absl|oneDNN|cuda|INFO|WARNING", re.IGNORECASE)


def test_every_cell_of_the_notebook_runs_and_libraries_print_nothing(tmp_path: Path) -> None:
    notebook = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # what is kept in git has none
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [
        "".join(output.get("text", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "text" in output
    ]
    assert not [text for text in printed if NOISE.search(text)]
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    assert last.outputs[0]["text"].strip().endswith("report.html")


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    lines = [
        line[4:] for line in (DOCS / "python.md").read_text(encoding="utf-8").splitlines() if line.startswith("    ")
    ]
    code = (
        "\n".join(lines)
        .replace("training.epochs=3", "training=smoke")
        .replace("optimizer=adam,sgd", 'optimizer=adam,sgd", "training=smoke')
    )
    exec(code, {"images": np.zeros((2, 28, 28, 1), np.uint8)})
