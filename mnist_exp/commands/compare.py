"""python -m mnist_exp compare: runs side by side, and whether they differ on the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_exp.commands.options import json_option, print_found, print_json, with_store, write_errors
from mnist_exp.commands.recipes import compare_recipes, print_recipes
from mnist_exp.commands.select_runs import (
    LABELS,
    MOST_DATA,
    Choice,
    check_metric,
    data_of,
    describe_data,
    find_differences,
    find_named,
    find_reference,
    metric_of,
    rank,
    search_by_data,
    shown_keys,
)  # fmt: skip
from mnist_exp.commands.tables import print_indented, print_notes, print_table
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.evaluation.metrics import SPLITS
from mnist_exp.evaluation.statistics import CorrectedTest, correct_all, test_pairs
from mnist_exp.terminal import format_duration
from mnist_exp.tracking import tags
from mnist_exp.tracking.find import DIGESTS, find, is_chosen
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun, read_runs
from mnist_exp.tracking.sweep_run import count_opened

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "cross_entropy")


@dataclass(frozen=True)
class Compared:
    """A run of a comparison.

    data: the number of its data set, from 1. reference: the run that it is tested against, None for the reference
    itself. tests: by split; their p values are corrected.
    """

    run: StoredRun
    data: int
    reference: StoredRun | None
    tests: Mapping[str, CorrectedTest]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    runs: those of one data set follow each other, unless they keep the order in which they were named.
    family: the number of tests that were corrected together, by split.
    differences: the parameters in which the runs differ. equal: the number of parameters in which they do not.
    opened: for how many models of the store the test set was opened, by digest of the data.
    has_more_data: whether the store has runs of further data sets.
    """

    runs: Sequence[Compared]
    choice: Choice
    family: Mapping[str, int]
    differences: Sequence[str]
    equal: int
    opened: Mapping[str, int] = field(default_factory=dict)
    has_more_data: bool = False

    def tables(self) -> list[list[Compared]]:
        """Returns the runs by data set."""
        numbers = dict.fromkeys(one.data for one in self.runs)
        return [[one for one in self.runs if one.data == number] for number in numbers]

    def rows(self) -> list[dict[str, Any]]:
        """Returns the runs as plain values."""
        return [self._row(one) for one in self.runs]

    def _row(self, one: Compared) -> dict[str, Any]:
        run, tests = one.run, one.tests
        counts = {"epochs": run.tags.get(tags.USED_EPOCH), "parameters": run.tags.get(tags.PARAMETERS)}
        epochs, parameters = (None if text is None else int(text) for text in counts.values())
        return {
            "name": run.name,
            "id": run.id,
            "data": describe_data(run),
            **{f"{split}/{name}": metric_of(run, f"{split}/{name}") for split in SPLITS for name in NUMBERS},
            **{f"{split}/p": tests[split].p if split in tests else None for split in SPLITS},
            **{f"{split}/p_adjusted": tests[split].adjusted_p if split in tests else None for split in SPLITS},
            **{f"{split}/family": self.family.get(split) if split in tests else None for split in SPLITS},
            "reference": one.reference.id if one.reference else None,
            "reference_by": "user" if self.choice.named_reference else "rank",
            "test_set_opened": self.opened.get(run.params.get(DIGESTS[0], "")),
            "epochs": epochs,
            "seconds": run.seconds,
            "parameters": parameters,
            **{key: run.params.get(key) for key in self.differences},
        }

    @property
    def table(self) -> "pd.DataFrame":
        """The runs, one row each, in the order of the comparison."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def paper_rows(self) -> list[dict[str, str]]:
        """Returns the runs as text for a table: the numbers that readers need, without empty columns."""
        several = len(self.tables()) > 1
        return [self._paper_row(one, several) for one in self.runs]

    def keys(self) -> list[str]:
        """Returns the parameters that set the runs apart, without those that `describe` names."""
        return [key for key in shown_keys([one.run for one in self.runs], self.differences) if key not in self._of_data]

    def describe(self, run: StoredRun) -> str:
        """Returns the data of a run, with the parameters in which all runs of these data are equal, in words."""
        return ", ".join([describe_data(run), *(f"{key}={run.params.get(key)}" for key in self._of_data)])

    @cached_property
    def _of_data(self) -> list[str]:
        tables = self.tables()
        return [
            key
            for key in self.differences
            if key.startswith("dataset.")
            and all(len({one.run.params.get(key) for one in runs}) == 1 for runs in tables)
        ]

    def _paper_row(self, one: Compared, several: bool) -> dict[str, str]:
        run = one.run
        row = {"data": self.describe(run)} if several else {}
        row |= {"run": run.name, "id": run.id[:8], **{key: run.params.get(key, "") for key in self.keys()}}
        for split, word in SPLITS.items():
            row[f"{word} accuracy (95% interval)"] = _accuracy(run, split)
            entropy = metric_of(run, f"{split}/cross_entropy")
            row[f"{word} cross-entropy"] = "" if entropy is None else f"{entropy:.4f}"
            row[f"{word} adjusted p"] = f"{one.tests[split].adjusted_p:.2g}" if split in one.tests else ""
        return row | {"parameters": run.tags.get(tags.PARAMETERS, "")}

    def notes(self) -> list[str]:
        """Returns sentences on how to read the comparison."""
        tables, metric = self.tables(), self.choice.objective.metric
        notes = []
        if len(tables) > 1:
            notes.append(f"The runs were scored on {len(tables)} sets of images. They are ranked only within each.")
        if self.has_more_data:
            notes.append("Runs of further data sets are left out; choose with --where dataset.digest=...")
        if sizes := ", ".join(f"{count} ({SPLITS[split]})" for split, count in self.family.items() if count):
            notes.append(f"p is adjusted by Holm's correction. Tests in the family: {sizes}. {self._reference_note()}")
        notes += [self._test_set_note(digest, count) for digest, count in self.opened.items() if count > 1]
        if averaged := [one.run.name for one in self.runs if tags.MODEL_RUN in one.run.tags]:
            notes.append(f"Means of several seeds, which are not tested: {', '.join(averaged)}; use --by-recipe.")
        without = sum(metric_of(one.run, metric) is None for one in self.runs)
        if without and not self.choice.keeps_order:
            notes.append(f"{without} of {len(self.runs)} runs have no finite {metric}. They are last.")
        if len(self.runs) > 1:
            notes.append(f"{self.equal} parameters are equal in all runs.")
        return notes

    def conclusions(self) -> list[str]:
        """Returns what the tests on the same validation images say of the runs, as sentences."""
        found: dict[tuple[str, str], list[str]] = {}
        for one in self.runs:
            if one.reference and "val" in one.tests:
                found.setdefault((one.reference.label, one.tests["val"].verdict), []).append(one.run.label)
        words = {
            "better": "On the same validation images {runs} did better than {reference}.",
            "worse": "On the same validation images {runs} did worse than {reference}.",
            "no difference shown": "The validation images do not show that {runs} and {reference} differ.",
        }
        return [
            words[verdict].format(reference=reference, runs=", ".join(runs))
            for (reference, verdict), runs in found.items()
        ]

    def _test_set_note(self, digest: str, count: int) -> str:
        data = f" of data {digest[:8]}" if len(self.opened) > 1 else ""
        return f"The test set{data} was opened for {count:,} models of this store. Choose by validation, not by test."

    def _reference_note(self) -> str:
        if self.choice.named_reference:
            return "They are those of the other runs against the reference that you named."
        return "They are all pairs of runs with the same data, because the ranking chose the reference."


def compare(store: Store, choice: Choice | None = None) -> Comparison:
    """Compares the runs that are named, else the best finished ones of each data set.

    Raises TrackingError if there is no run to compare, ConfigError if no run has the metric to sort by.
    """
    choice = choice or Choice()
    reference, has_more = find_reference(store, choice), False
    if choice.wanted:
        found = find_named(store, choice)
        if choice.sort:
            check_metric(choice.sort, found)
    else:
        groups = search_by_data(store, choice)
        found, has_more = [run for group in groups[:MOST_DATA] for run in group], len(groups) > MOST_DATA
    if reference and reference.id not in {run.id for run in found}:
        found = [reference, *found] if choice.keeps_order else rank([reference, *found], choice.objective)
    runs = read_runs(store, found)
    if choice.keeps_order:
        reference = reference or runs[0]
    elif reference:
        runs.sort(key=lambda run: data_of(run) != data_of(reference))
    differences = find_differences(runs)
    equal = len({key for run in runs for key in run.params} - LABELS) - len(differences)
    tested, family = _test(runs, reference.id if reference else None, choice.named_reference is None)
    digests = dict.fromkeys(run.params[DIGESTS[0]] for run in runs if DIGESTS[0] in run.params)
    return Comparison(tested, choice, family, differences, equal, count_opened(store, digests), has_more)


def _test(runs: Sequence[StoredRun], wanted: str | None, by_rank: bool) -> tuple[list[Compared], dict[str, int]]:
    """Tests each run against its reference. Returns the runs, and the number of tests in the family by split.

    wanted: the id of the reference; None: the first run of each data set. by_rank: a ranking chose the reference, which
    is the largest of several scores, so each pair could have been the one that is tested.
    """
    places = {run.id: place for place, run in enumerate(runs)}
    firsts: dict[Any, int] = {}
    for place, run in enumerate(runs):
        firsts.setdefault(data_of(run), place)
    references = [places[wanted] if wanted else firsts[data_of(run)] for run in runs]
    pairs = {(place, reference) for place, reference in enumerate(references) if place != reference}
    if by_rank:
        pairs |= {
            (two, one)
            for one, two in combinations(range(len(runs)), 2)
            if data_of(runs[one]) == data_of(runs[two]) and (one, two) not in pairs
        }
    # The predictions of a trial with several seeds are those of its best seed, which its mean is not.
    predictions = [None if tags.MODEL_RUN in run.tags else run.predictions for run in runs]
    tests = {}
    for split in SPLITS:
        found = test_pairs(predictions, sorted(pairs), split)
        tests[split] = dict(zip(found, correct_all(list(found.values())), strict=True))
    numbers = {data: number for number, data in enumerate(firsts, 1)}
    compared = [
        Compared(
            run, numbers[data_of(run)], None if place == reference else runs[reference],
            {split: tests[split][place, reference] for split in SPLITS if (place, reference) in tests[split]},
        )
        for place, (run, reference) in enumerate(zip(runs, references, strict=True))
    ]  # fmt: skip
    return compared, {split: len(tests[split]) for split in SPLITS}


@click.command(help=__doc__)
@click.argument("runs", nargs=-1)
@click.option("--experiment", help="The experiment to look in; by default all.")
@click.option("--where", multiple=True, metavar="KEY=VALUE", help="Only runs with this parameter; may be repeated.")
@click.option(
    "--sort", metavar="METRIC", help="Rank by this metric. Default: val/accuracy; named runs keep their order."
)
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True, help="Runs of each data set.")
@click.option(
    "--reference", metavar="RUN", help="Test against this run. Default: the first run that is named, or the best."
)
@click.option("--by-recipe", is_flag=True, help="Compare configs over their seeds.")
@click.option("--figure", type=click.Path(dir_okay=False, path_type=Path), help="Draw curves and confusion matrices.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page that needs no other file.")
@click.option("--csv", "table", flag_value="csv", help="Print comma-separated values.")
@click.option("--markdown", "table", flag_value="markdown", help="Print a table in Markdown.")
@click.option("--latex", "table", flag_value="latex", help="Print a table for LaTeX with the package booktabs.")
@json_option("an array with an object per run or recipe; docs/scripts.md explains its keys.")
@with_store
def command(
    runs: Sequence[str], experiment: str | None, where: Sequence[str], sort: str | None, top: int,
    reference: str | None, by_recipe: bool, figure: Path | None, html: Path | None, table: str | None, as_json: bool,
    store: Store,
) -> None:  # fmt: skip
    """Prints the best finished runs, or the ones that are named."""
    if table and as_json:
        raise ConfigError(Problem("--json", "cannot be combined", remedy=f"leave out --json or --{table}"))
    choice = Choice(runs, experiment, _parse(where), sort, top, reference)
    for name in filter(is_chosen, dict.fromkeys((*runs, *filter(None, [reference])))):
        print_found(find(store, name, experiment), as_json or bool(table))
    if by_recipe:
        if figure or html:
            raise ConfigError(
                Problem("--by-recipe", "has no figure and no page", remedy="leave out --figure and --html")
            )
        comparison: Any = compare_recipes(store, choice)
    else:
        comparison = compare(store, choice)
        _write_pages(figure, html, store, comparison)
    if as_json:
        print_json(comparison.rows())
    elif table:
        print_table(table, comparison.rows() if table == "csv" else comparison.paper_rows(), comparison.notes())
    elif by_recipe:
        print_recipes(comparison)
    else:
        _print(comparison)


def _write_pages(figure: Path | None, html: Path | None, store: Store, comparison: Comparison) -> None:
    if not (figure or html):
        return
    from mnist_exp.commands.comparison_page import write_figure, write_html

    runs = [one.run for one in comparison.runs]
    if figure:
        with write_errors("--figure", figure):
            write_figure(figure, store, runs)
    if html:
        with write_errors("--html", html):
            write_html(html, store, runs, comparison.paper_rows(), comparison.conclusions() + comparison.notes())


def _parse(where: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in where:
        key, sign, value = text.partition("=")
        if not sign or {"'", '"'} <= set(value) or "`" in key:  # the search language has no way to write both
            raise ConfigError(Problem("--where", "must be KEY=VALUE, such as model=cnn", text))
        pairs[key] = value
    return pairs


def _print(comparison: Comparison) -> None:
    """Prints a line of numbers for each run, and below it its facts and what sets it apart."""
    tables, keys = comparison.tables(), comparison.keys()
    for runs in tables:
        if len(tables) > 1:
            print_notes([f"data {runs[0].data}: {comparison.describe(runs[0].run)}"])
        click.echo(f"{'run':<32}{'validation':<23}{'test':<23}".rstrip())
        for one in runs:
            _print_run(one, keys, runs[0].run)
        click.echo()
    print_notes(comparison.notes())


def _print_run(one: Compared, keys: Sequence[str], first: StoredRun) -> None:
    run = one.run
    name = f"{run.name[:20]} ({run.id[:8]})"
    click.echo(f"{name:<32}{_accuracy(run, 'val') or '-':<23}{_accuracy(run, 'test') or '-':<23}".rstrip())
    facts = [f"macro F1 {run.metrics['val/macro_f1']:.4f}"] if "val/macro_f1" in run.metrics else []
    entropy = metric_of(run, "val/cross_entropy")
    facts += [] if entropy is None else [f"cross-entropy {entropy:.4f}"]
    facts += [f"{run.tags[tags.USED_EPOCH]} epochs"] if tags.USED_EPOCH in run.tags else []
    facts += [f"{int(run.tags[tags.PARAMETERS]):,} parameters"] if tags.PARAMETERS in run.tags else []
    facts += [format_duration(run.seconds)] if run.seconds is not None else []
    print_indented(", ".join(facts))
    print_indented(" ".join(f"{key}={run.params[key]}" for key in keys if key in run.params))
    if one.reference:
        other = "the first" if one.reference is first else one.reference.label
        print_indented("; ".join(_format_test(split, test, other) for split, test in one.tests.items()))


def _accuracy(run: StoredRun, split: str) -> str:
    """Returns the accuracy with its 95% interval, or an empty text."""
    accuracy, low, high = (metric_of(run, f"{split}/accuracy{end}") for end in ("", "_low", "_high"))
    if accuracy is None:
        return ""
    return f"{accuracy:.2%}" if low is None or high is None else f"{accuracy:.2%} ({100 * low:.2f}-{100 * high:.2f})"


def _format_test(split: str, test: CorrectedTest, other: str) -> str:
    numbers = f"{test.first_only} against {test.second_only} of {test.images:,}, adjusted p={test.adjusted_p:.2g}"
    return f"{split} against {other}: {test.verdict} ({numbers})"
