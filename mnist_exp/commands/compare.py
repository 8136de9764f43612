"""python -m mnist_exp compare: runs side by side, and whether they differ on the same images."""

import csv
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist_exp.commands.options import with_tracking
from mnist_exp.errors import ConfigError, TrackingError
from mnist_exp.terminal import duration
from mnist_exp.tracking import Tracking, existing_store

if TYPE_CHECKING:
    from mnist_exp.comparing import Compared, Paired

LEAST = ("loss", "calibration_error")  # metrics of which less is better
WIDTH = 80


@click.command(help=__doc__)
@click.argument("runs", nargs=-1)
@click.option("--experiment", help="The experiment to look in; else all.")
@click.option("--where", multiple=True, metavar="KEY=VALUE", help="Only runs with this parameter; may be repeated.")
@click.option("--sort", default="val/accuracy", show_default=True, help="The metric to sort by.")
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--figure", type=click.Path(dir_okay=False, path_type=Path), help="Curves and confusion matrices.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="One file to send to somebody.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values instead of the table.")
@click.option("--json", "as_json", is_flag=True, help="An array of objects instead of the table.")
@with_tracking
def command(
    runs: Sequence[str], experiment: str | None, where: Sequence[str], sort: str, top: int, figure: Path | None,
    html: Path | None, as_csv: bool, as_json: bool, tracking: Tracking,
) -> None:  # fmt: skip
    """Prints the best finished runs, or the ones that are named."""
    from mnist_exp import comparing
    from mnist_exp.tracking.lookup import find_run

    store = existing_store(tracking)
    if runs:
        found = [find_run(store, wanted, experiment) for wanted in runs]
    else:
        found = comparing.search(store, experiment, _pairs(where), sort, sort.endswith(LEAST), top)
    if not found:
        raise TrackingError("there is no finished run that meets this; leave out --where, or start a run")
    shown = comparing.all_compared(store, found)
    keys = comparing.differing(shown)
    tests = [comparing.against(shown[0], run) for run in shown]
    rows = [comparing.row(run, against_first, keys) for run, against_first in zip(shown, tests, strict=True)]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print(shown, tests, keys)
    if figure or html:
        from mnist_exp.comparison_page import write_figure, write_html

        try:
            if figure:
                write_figure(figure, store, shown)
            if html:
                write_html(html, store, shown, rows)
        except (OSError, ValueError) as error:  # no such folder, or no format of that name
            raise ConfigError(f"{error}; give --figure and --html a file in a folder that exists") from error


def _pairs(where: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for given in where:
        key, sign, value = given.partition("=")
        if not sign or "'" in value or "`" in key:
            raise ConfigError(f"--where must be KEY=VALUE, such as model=cnn, but got {given!r}")
        pairs[key] = value
    return pairs


def _print(shown: Sequence["Compared"], tests: Sequence[Mapping[str, "Paired"]], keys: Sequence[str]) -> None:
    """A line of numbers for each run, and below it what sets it apart."""
    from mnist_exp.comparing import difference_of

    click.echo(f"{'run':<32}{'validation':<23}{'test':<23}")
    for run, against_first in zip(shown, tests, strict=True):
        name = f"{run.name[:20]} ({run.id[:8]})"
        click.echo(f"{name:<32}{_accuracy(run, 'val'):<23}{_accuracy(run, 'test'):<23}".rstrip())
        facts = [f"macro F1 {run.metrics['val/macro_f1']:.4f}"] if "val/macro_f1" in run.metrics else []
        facts += [f"{run.tags['used_epoch']} epochs"] if "used_epoch" in run.tags else []
        facts += [f"{int(run.tags['parameters']):,} parameters"] if "parameters" in run.tags else []
        facts += [duration(run.seconds)] if run.seconds is not None else []
        _indented(", ".join(facts))
        _indented(difference_of(run, keys))
        _indented("; ".join(_said(split, test) for split, test in against_first.items()))


def _accuracy(run: "Compared", split: str) -> str:
    """With its 95% interval."""
    try:
        right, low, high = (run.metrics[f"{split}/accuracy{end}"] for end in ("", "_low", "_high"))
    except KeyError:
        return "-"
    return f"{right:.2%} ({100 * low:.2f}-{100 * high:.2f})"


def _said(split: str, test: "Paired") -> str:
    numbers = f"{test.first_only} against {test.second_only} of {test.images:,}, p={test.p:.2g}"
    return f"{split} against the first: {test.verdict} ({numbers})"


def _indented(words: str) -> None:
    for line in textwrap.wrap(words, WIDTH - 4, break_long_words=False, break_on_hyphens=False):
        click.echo(f"    {line}")
