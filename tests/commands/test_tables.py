import csv
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from mnist_exp.commands.tables import print_table, to_latex, to_markdown

ODD = 'a_b 50% & #1 | "x, y" $~^\\{} <[1, 2]> --c'
ROWS = [{"run": ODD, "empty": "", "p": "0.01"}, {"run": "[64, 32]", "empty": "", "p": ""}]


def test_latex_escapes_every_special_character() -> None:
    text = to_latex([{"run": ODD}])
    assert (
        r"a\_b 50\% \& \#1 \textbar{} \textquotedbl{}x, y\textquotedbl{} \$\textasciitilde{}\textasciicircum{}"
        r"\textbackslash{}\{\} \textless{}{[}1, 2{]}\textgreater{} -{}-c \\"
    ) in text
    assert text.startswith("% needs \\usepackage{booktabs}")
    assert text.count("\\\\") == 2


def test_latex_compiles(tmp_path: Path) -> None:
    if not (program := shutil.which("pdflatex")):
        pytest.skip("there is no pdflatex here")
    packages = r"\usepackage{booktabs}\usepackage[T1]{fontenc}"
    page = rf"\documentclass{{article}}{packages}\begin{{document}}{to_latex(ROWS)}\end{{document}}"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    subprocess.run([program, "-halt-on-error", "page.tex"], cwd=tmp_path, check=True, timeout=60)


def test_markdown_has_one_cell_per_value() -> None:
    header, rule, first = to_markdown([{"run": ODD, "n": "1"}]).splitlines()
    assert header == "| run | n |"
    assert rule == "| --- | --- |"
    assert first == r"| a\_b 50% \& \#1 \| "[:-1] + ' "x, y" ' + r"$\~^\\\{\} \<\[1, 2\]\> --c | 1 |"


def test_csv_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("csv", ROWS, ["a note"])
    out, err = capsys.readouterr()
    assert list(csv.DictReader(io.StringIO(out))) == ROWS
    assert err == "a note\n"


def test_empty_columns_are_left_out_and_data_get_tables_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("markdown", [{"data": data, **row} for data in ("one", "two") for row in ROWS], [])
    out, _ = capsys.readouterr()
    assert out.count("| data | run | p |") == 2
    print_table("latex", ROWS, [])
    out, _ = capsys.readouterr()
    assert "empty" not in out
