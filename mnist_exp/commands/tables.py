"""Prints tables: text below a line in a terminal; Markdown, LaTeX and CSV for papers and programs."""

import csv
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import click

WIDTH = 80
# Characters that Markdown or LaTeX would not print as they are.
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|&~])")
LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}",
    "<": r"\textless{}", ">": r"\textgreater{}", '"': r"\textquotedbl{}", "[": "{[}", "]": "{]}",
}  # fmt: skip
NEEDS = r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"


def print_indented(text: str) -> None:
    """Prints a text below a line of a table."""
    for line in textwrap.wrap(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False):
        click.echo(f"    {line}")


def print_notes(notes: Sequence[str]) -> None:
    """Prints sentences below a table."""
    for note in notes:
        click.echo(textwrap.fill(note, WIDTH, break_long_words=False, break_on_hyphens=False))


def print_table(kind: str, rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> None:
    """Prints rows, and the notes on standard error. kind: csv, markdown or latex.

    Markdown and LaTeX leave out empty columns, and get a table for each value of the column `data`.
    """
    for note in notes:
        click.echo(note, err=True)
    if kind == "csv":
        writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    write = {"markdown": to_markdown, "latex": to_latex}[kind]
    click.echo("\n".join(map(write, split_by_data(rows))), nl=False)


def split_by_data(rows: Sequence[Mapping[str, str]]) -> list[list[dict[str, str]]]:
    """Returns a table, without empty columns, for each value of the column `data`."""
    values = dict.fromkeys(row.get("data") for row in rows)
    return [without_empty_columns([row for row in rows if row.get("data") == value]) for value in values]


def without_empty_columns(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Returns rows with the columns that have a text in at least one of them."""
    kept = [column for column in rows[0] if any(row[column] for row in rows)]
    return [{column: row[column] for column in kept} for row in rows]


def to_markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns a table in GitHub's Markdown."""
    lines = [list(map(_escape_markdown, row)) for row in (list(rows[0]), *(list(row.values()) for row in rows))]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_latex(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns a tabular with the rules of booktabs."""
    header, *lines = (
        " & ".join(map(_escape_latex, cells)) + r" \\" for cells in (rows[0], *(row.values() for row in rows))
    )
    frame = [NEEDS, rf"\begin{{tabular}}{{{'l' * len(rows[0])}}}", r"\toprule", header, r"\midrule", *lines]
    return "\n".join([*frame, r"\bottomrule", r"\end{tabular}", ""])


def _escape_markdown(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _escape_latex(text: str) -> str:
    escaped = "".join(LATEX.get(sign, sign) for sign in " ".join(text.split()))
    return re.sub("-(?=-)", "-{}", escaped)  # LaTeX makes a dash of two hyphens
