"""python -m mnist_exp compare: runs side by side, and whether they differ on the same images."""

import csv
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mnist_exp.commands.options import json_option, print_json, with_store, write_errors
from mnist_exp.config.objective import Objective
from mnist_exp.errors import ConfigError, Problem, TrackingError
from mnist_exp.evaluation.statistics import PairedTest, test_pair
from mnist_exp.terminal import format_duration
from mnist_exp.tracking import tags
from mnist_exp.tracking.find import DIGESTS, find_run, search_runs
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, read_runs

WIDTH = 80
SPLITS = ("val", "test")
NUMBERS = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1")
# Parameters that say where a run was recorded, or follow from others.
PLUMBING = (*DIGESTS, "tracking.", "dataset.path", "export", "name", "training.resume")


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    differences: the parameters in which the runs differ.
    tests: for each run its test against the first run, by split.
    """

    runs: Sequence[StoredRun]
    differences: Sequence[str]
    tests: Sequence[Mapping[str, PairedTest]]

    def rows(self) -> list[dict[str, Any]]:
        """Returns the runs as plain values. `val/p` and `test/p` are the p values of the tests."""
        return [self._row(*pair) for pair in zip(self.runs, self.tests, strict=True)]

    def _row(self, run: StoredRun, tests: Mapping[str, PairedTest]) -> dict[str, Any]:
        counts = {"epochs": run.tags.get(tags.USED_EPOCH), "parameters": run.tags.get(tags.PARAMETERS)}
        epochs, parameters = (None if text is None else int(text) for text in counts.values())
        return {
            "name": run.name,
            "id": run.id,
            **{f"{split}/{name}": run.metrics.get(f"{split}/{name}") for split in SPLITS for name in NUMBERS},
            **{f"{split}/p": tests[split].p if split in tests else None for split in SPLITS},
            "epochs": epochs,
            "seconds": run.seconds,
            "parameters": parameters,
            **{key: run.params.get(key) for key in self.differences},
        }


def compare(
    store: Store,
    wanted: Sequence[str] = (),
    experiment: str | None = None,
    where: Mapping[str, str] | None = None,
    sort: str = "val/accuracy",
    top: int = 10,
) -> Comparison:
    """Compares the runs that are named, else the best finished ones.

    where: parameters that the runs must have. sort: the metric that says which are the best.
    Raises TrackingError if there is no run to compare.
    """
    if wanted:
        found = [find_run(store, name, experiment) for name in wanted]
    else:
        found = search_runs(store, Objective.from_metric(sort), where or {}, top, experiment)
    if not found:
        remedy = "leave out --where, or start a run"
        raise TrackingError(Problem("the store", "has no finished run with these parameters", remedy=remedy))
    runs = read_runs(store, found)
    return Comparison(runs, find_differences(runs), [test_against(runs[0], run) for run in runs])


def find_differences(runs: Sequence[StoredRun]) -> list[str]:
    """Returns the parameters in which the runs differ, in the order of the configs, without PLUMBING."""
    keys = dict.fromkeys(key for run in runs for key in run.params)
    return [key for key in keys if not key.startswith(PLUMBING) and len({run.params.get(key) for run in runs}) > 1]


def test_against(first: StoredRun, run: StoredRun) -> dict[str, PairedTest]:
    """Tests a run against the first, by split. Returns nothing for the first run itself."""
    if run is first:
        return {}
    tests = {split: test_pair(run.predictions, first.predictions, split) for split in SPLITS}
    return {split: test for split, test in tests.items() if test}


test_against.__test__ = False  # type: ignore[attr-defined]  # not a test of pytest


@click.command(help=__doc__)
@click.argument("runs", nargs=-1)
@click.option("--experiment", help="The experiment to look in; by default all.")
@click.option("--where", multiple=True, metavar="KEY=VALUE", help="Only runs with this parameter; may be repeated.")
@click.option("--sort", default="val/accuracy", show_default=True, help="The metric to sort by.")
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--figure", type=click.Path(dir_okay=False, path_type=Path), help="Draw curves and confusion matrices.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page that needs no other file.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@json_option("an array with an object per run: name, id, metrics, val/p, test/p, and parameters that differ.")
@with_store
def command(
    runs: Sequence[str], experiment: str | None, where: Sequence[str], sort: str, top: int, figure: Path | None,
    html: Path | None, as_csv: bool, as_json: bool, store: Store,
) -> None:  # fmt: skip
    """Prints the best finished runs, or the ones that are named."""
    comparison = compare(store, runs, experiment, _parse(where), sort, top)
    rows = comparison.rows()
    if figure or html:
        from mnist_exp.commands.comparison_page import write_figure, write_html

        if figure:
            with write_errors("--figure", figure):
                write_figure(figure, store, comparison.runs)
        if html:
            with write_errors("--html", html):
                write_html(html, store, comparison.runs, rows)
    if as_json:
        print_json(rows)
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print(comparison)


def _parse(where: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in where:
        key, sign, value = text.partition("=")
        if not sign or "'" in value or "`" in key:
            raise ConfigError(Problem("--where", "must be KEY=VALUE, such as model=cnn", text))
        pairs[key] = value
    return pairs


def _print(comparison: Comparison) -> None:
    """Prints a line of numbers for each run, and below it its facts and what sets it apart."""
    click.echo(f"{'run':<32}{'validation':<23}{'test':<23}")
    for run, tests in zip(comparison.runs, comparison.tests, strict=True):
        name = f"{run.name[:20]} ({run.id[:8]})"
        click.echo(f"{name:<32}{_accuracy(run, 'val'):<23}{_accuracy(run, 'test'):<23}".rstrip())
        facts = [f"macro F1 {run.metrics['val/macro_f1']:.4f}"] if "val/macro_f1" in run.metrics else []
        facts += [f"{run.tags[tags.USED_EPOCH]} epochs"] if tags.USED_EPOCH in run.tags else []
        facts += [f"{int(run.tags[tags.PARAMETERS]):,} parameters"] if tags.PARAMETERS in run.tags else []
        facts += [format_duration(run.seconds)] if run.seconds is not None else []
        _print_indented(", ".join(facts))
        _print_indented(" ".join(f"{key}={run.params[key]}" for key in comparison.differences if key in run.params))
        _print_indented("; ".join(_format_test(split, test) for split, test in tests.items()))


def _accuracy(run: StoredRun, split: str) -> str:
    """Returns the accuracy with its 95% interval."""
    try:
        accuracy, low, high = (run.metrics[f"{split}/accuracy{end}"] for end in ("", "_low", "_high"))
    except KeyError:
        return "-"
    return f"{accuracy:.2%} ({100 * low:.2f}-{100 * high:.2f})"


def _format_test(split: str, test: PairedTest) -> str:
    numbers = f"{test.first_only} against {test.second_only} of {test.images:,}, p={test.p:.2g}"
    return f"{split} against the first: {test.verdict} ({numbers})"


def _print_indented(text: str) -> None:
    for line in textwrap.wrap(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False):
        click.echo(f"    {line}")
