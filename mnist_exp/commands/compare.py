"""python -m mnist_exp compare: runs side by side, and whether they differ on the same images."""

import csv
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_exp.commands.options import with_tracking
from mnist_exp.config.schema import Tracking
from mnist_exp.errors import ConfigError, TrackingError
from mnist_exp.evaluation.statistics import PairedTest, test_pair
from mnist_exp.terminal import duration
from mnist_exp.tracking.store import existing_store
from mnist_exp.tracking.stored_run import Compared

if TYPE_CHECKING:
    from mnist_exp.evaluation.statistics import PairedTest
    from mnist_exp.tracking.stored_run import Compared

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
    from mnist_exp.tracking.find import find_run, search
    from mnist_exp.tracking.stored_run import all_compared

    store = existing_store(tracking)
    if runs:
        found = [find_run(store, wanted, experiment) for wanted in runs]
    else:
        found = search(store, experiment, _pairs(where), sort, sort.endswith(LEAST), top)
    if not found:
        raise TrackingError("there is no finished run that meets this; leave out --where, or start a run")
    shown = all_compared(store, found)
    keys = differing(shown)
    tests = [against(shown[0], run) for run in shown]
    rows = [row(run, against_first, keys) for run, against_first in zip(shown, tests, strict=True)]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print(shown, tests, keys)
    if figure or html:
        from mnist_exp.commands.comparison_page import write_figure, write_html

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


def _print(shown: Sequence["Compared"], tests: Sequence[Mapping[str, "PairedTest"]], keys: Sequence[str]) -> None:
    """A line of numbers for each run, and below it what sets it apart."""

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


def _said(split: str, test: "PairedTest") -> str:
    numbers = f"{test.first_only} against {test.second_only} of {test.images:,}, p={test.p:.2g}"
    return f"{split} against the first: {test.verdict} ({numbers})"


def _indented(words: str) -> None:
    for line in textwrap.wrap(words, WIDTH - 4, break_long_words=False, break_on_hyphens=False):
        click.echo(f"    {line}")


SPLITS = ("val", "test")

# Parameters that say where a run was recorded, or follow from others.
PLUMBING = (
    "tracking.",
    "dataset.digest",
    "dataset.validation_digest",
    "dataset.path",
    "export",
    "name",
    "training.resume",
)


def differing(runs: Sequence[Compared]) -> list[str]:
    """The parameters in which these runs differ, in the order of the configs; where they were recorded left out."""
    keys = dict.fromkeys(key for run in runs for key in run.params)
    return [key for key in keys if not key.startswith(PLUMBING) and len({run.params.get(key) for run in runs}) > 1]


def difference_of(run: Compared, keys: Sequence[str]) -> str:
    """What sets a run apart, as overrides."""
    return " ".join(f"{key}={run.params[key]}" for key in keys if key in run.params)


def against(first: Compared, run: Compared) -> dict[str, PairedTest]:
    """How a run does against the first, by split; empty for the first itself."""
    if run is first:
        return {}
    tests = {split: test_pair(run.predictions, first.predictions, split) for split in SPLITS}
    return {split: test for split, test in tests.items() if test}


def row(run: Compared, tests: Mapping[str, PairedTest], keys: Sequence[str]) -> dict[str, Any]:
    """All of it as plain values; tests: by split, whose p stands there as */p; keys: the parameters to name."""
    names = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1")
    return {
        "name": run.name,
        "id": run.id,
        **{f"{split}/{name}": run.metrics.get(f"{split}/{name}") for split in SPLITS for name in names},
        **{f"{split}/p": tests[split].p if split in tests else None for split in SPLITS},
        "epochs": _whole(run.tags.get("used_epoch")),
        "seconds": run.seconds,
        "parameters": _whole(run.tags.get("parameters")),
        **{key: run.params.get(key) for key in keys},
    }


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)
