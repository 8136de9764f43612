"""compare --by-recipe: groups runs whose configs differ in the seed only, and compares the groups."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from typing import Any

import click
import numpy as np

from mnist_exp.commands.select_runs import (
    LABELS,
    Choice,
    Data,
    check_metric,
    data_of,
    describe_data,
    find_differences,
    find_named,
    find_reference,
    list_trainings,
    metric_of,
    shown_keys,
)  # fmt: skip
from mnist_exp.commands.tables import print_indented, print_notes
from mnist_exp.config.compose import GROUPS
from mnist_exp.errors import ConfigError, Problem
from mnist_exp.evaluation.seeds import ALPHA, MOST_SEEDS, POWER, Interval, Scores, SeedTest, test_recipes
from mnist_exp.evaluation.statistics import SIGNIFICANT, adjust_holm
from mnist_exp.tracking.store import Store
from mnist_exp.tracking.stored_run import StoredRun

SEED = "seed"
RecipeKey = tuple[Data, frozenset[tuple[str, str]]]
# Parameters that do not change what is trained: names, and choices, whose values are parameters themselves.
NOT_TRAINED = LABELS | {SEED, "dataset._target_", "dataset.name", *GROUPS}


@dataclass(frozen=True)
class Recipe:
    """Runs of one config with different seeds.

    number: its place, from 1. data: the number of its data set, from 1. scores: the metric by seed; runs with the same
    seed are not independent, so they count as one, with their mean.
    """

    number: int
    data: int
    runs: Sequence[StoredRun]
    scores: Scores

    @property
    def key(self) -> RecipeKey:
        """What its runs share."""
        return recipe_of(self.runs[0])

    @property
    def data_key(self) -> Data:
        """Data set and validation images of its runs."""
        return data_of(self.runs[0])

    @property
    def interval(self) -> Interval:
        """Mean and 95% interval over the seeds."""
        return Interval.from_values(np.array(list(self.scores.values())))


@dataclass(frozen=True)
class ComparedRecipe:
    """A recipe with its test against the reference. reference, test and adjusted_p are None if there is no test."""

    recipe: Recipe
    reference: Recipe | None
    test: SeedTest | None
    adjusted_p: float | None

    @property
    def verdict(self) -> str:
        """Whether the metric is `higher` or `lower` than that of the reference, or why this is not known."""
        if self.test is None:
            return "not tested: one seed"
        if self.adjusted_p is None:
            return "not tested: the seeds have no spread"
        if self.adjusted_p >= SIGNIFICANT:
            return "no difference shown"
        return "higher" if self.test.difference > 0 else "lower"


@dataclass(frozen=True)
class RecipeComparison:
    """Recipes side by side. family: the number of tests that were corrected together."""

    recipes: Sequence[ComparedRecipe]
    choice: Choice
    family: int
    differences: Sequence[str]
    left_out: int
    without_metric: int

    @property
    def metric(self) -> str:
        """The metric that is compared."""
        return self.choice.objective.metric

    def rows(self) -> list[dict[str, Any]]:
        """Returns the recipes as plain values."""
        return [self._row(one) for one in self.recipes]

    def _row(self, one: ComparedRecipe) -> dict[str, Any]:
        recipe, interval, test = one.recipe, one.recipe.interval, one.test
        return {
            "recipe": recipe.number,
            "data": describe_data(recipe.runs[0]),
            "seeds": len(recipe.scores),
            "runs": [run.id for run in recipe.runs],
            "metric": self.metric,
            "mean": interval.mean,
            "deviation": interval.deviation,
            "low": interval.low,
            "high": interval.high,
            "reference": one.reference.number if one.reference else None,
            "reference_by": "user" if self.choice.named_reference else "rank",
            "test": test and test.kind,
            "difference": test and test.difference,
            "difference_low": test and test.low,
            "difference_high": test and test.high,
            "p": test and test.p,
            "p_adjusted": one.adjusted_p,
            "family": self.family if one.adjusted_p is not None else None,
            "seeds_needed": test and test.seeds_needed,
            **{key: recipe.runs[0].params.get(key) for key in self.differences},
        }

    def paper_rows(self) -> list[dict[str, str]]:
        """Returns the recipes as text for a table."""
        return [self._paper_row(one, self.keys()) for one in self.recipes]

    def _paper_row(self, one: ComparedRecipe, keys: Sequence[str]) -> dict[str, str]:
        recipe, interval, test = one.recipe, one.recipe.interval, one.test
        row = {"data": describe_data(recipe.runs[0])} if len({other.recipe.data for other in self.recipes}) > 1 else {}
        return row | {
            "recipe": str(recipe.number),
            **{key: recipe.runs[0].params.get(key, "") for key in keys},
            "seeds": str(len(recipe.scores)),
            f"mean {self.metric}": self.format(interval.mean),
            "standard deviation": "" if interval.deviation is None else self.format(interval.deviation),
            "95% interval": self.format_range(interval),
            "compared with": str(one.reference.number) if one.reference and test else "",
            f"difference{self.unit and ' (points)'}": self.format_difference(test.difference) if test else "",
            "95% interval of the difference": self.format_difference(test.low, test.high) if test else "",
            "adjusted p": "" if one.adjusted_p is None else f"{one.adjusted_p:.2g}",
            "seeds needed": format_needed(test) if test else "",
        }

    def keys(self) -> list[str]:
        """Returns the parameters that set the recipes apart."""
        return shown_keys([one.recipe.runs[0] for one in self.recipes], self.differences)

    def format(self, value: float) -> str:
        """Returns a value of the metric: accuracies in percent."""
        return f"{value:.2%}" if self.unit else f"{value:.4f}"

    def format_range(self, interval: Interval) -> str:
        """Returns an interval, or an empty text if there is none."""
        if interval.low is None or interval.high is None:
            return ""
        return f"{self.format(interval.low)} to {self.format(interval.high)}"

    @property
    def unit(self) -> str:
        """The unit of a difference: that of two accuracies is in points of a percentage."""
        return "points" if self.metric.endswith("accuracy") else ""

    def format_difference(self, *values: float | None) -> str:
        """Returns a difference, or both ends of its interval; an empty text if there is none."""
        return " to ".join(f"{100 * v:+.2f}" if self.unit else f"{v:+.4f}" for v in values if v is not None)

    def notes(self) -> list[str]:
        """Returns sentences on how to read the comparison."""
        notes = []
        data = len({one.recipe.data for one in self.recipes})
        if data > 1:
            notes.append(f"The recipes were scored on {data} sets of images. They are ranked only within each.")
        if any(one.recipe.interval.low is None for one in self.recipes):
            notes.append("There is no interval for one seed, nor for seeds with equal results.")
        if self.family:
            named = "They are those of the other recipes against the reference that you named."
            ranked = "They are all pairs of recipes with the same data, because the ranking chose the reference."
            reason = named if self.choice.named_reference else ranked
            notes.append(f"p is adjusted by Holm's correction. Tests in the family: {self.family}. {reason}")
        if any(one.adjusted_p is not None for one in self.recipes):
            notes.append(
                f"Seeds needed: per recipe, to find a difference of the size seen with a probability of {POWER:.0%} at "
                f"p < {ALPHA:g}, without correction."
            )
        if self.without_metric:
            notes.append(f"{self.without_metric} runs have no finite {self.metric}. They are not part of the means.")
        if self.left_out:
            notes.append(f"{self.left_out} recipes are left out; show more with --top.")
        return notes


def compare_recipes(store: Store, choice: Choice) -> RecipeComparison:
    """Compares the recipes of the runs that are named, else of all finished ones. Pruned trials are left out.

    Raises TrackingError if there is no run to compare, ConfigError if no run has the metric.
    """
    reference, metric = find_reference(store, choice), choice.objective.metric
    runs = list_trainings(store, choice)
    if reference and recipe_of(reference) not in map(recipe_of, runs):
        runs = [*list_trainings(store, replace(choice, wanted=[reference.id])), *runs]
    elif choice.keeps_order:
        reference = reference or find_named(store, choice)[0]
    check_metric(metric, runs)
    scored = [run for run in runs if metric_of(run, metric) is not None]
    recipes = _group(scored, choice)
    first = recipe_of(reference) if reference else None
    if first:
        if first not in map(recipe_of, scored):
            raise ConfigError(Problem("--reference", f"must have a finite {metric}", choice.reference))
        recipes.sort(key=lambda recipe: recipe.data_key != first[0])
    numbers = {data: number for number, data in enumerate(dict.fromkeys(recipe.data_key for recipe in recipes), 1)}
    placed = [replace(recipe, data=numbers[recipe.data_key]) for recipe in recipes]
    shown = [recipe for recipe in placed if _is_shown(recipe, placed, choice.top, first)]
    shown = [replace(recipe, number=number) for number, recipe in enumerate(shown, 1)]
    tested, family = _test(shown, first, choice.named_reference is None)
    differences = [key for key in find_differences([recipe.runs[0] for recipe in shown]) if key not in NOT_TRAINED]
    return RecipeComparison(tested, choice, family, differences, len(placed) - len(shown), len(runs) - len(scored))


def recipe_of(run: StoredRun) -> RecipeKey:
    """Returns what the runs of one recipe share: data set and validation images, and every value but the seed."""
    return data_of(run), frozenset((key, value) for key, value in run.set_params.items() if key not in NOT_TRAINED)


def _group(runs: Sequence[StoredRun], choice: Choice) -> list[Recipe]:
    """Returns the recipes: in the order of the runs if they were named, else the best mean first.

    Recipes with one seed follow those with several: the best of many single seeds is the luckiest one.
    """
    groups: dict[RecipeKey, list[StoredRun]] = defaultdict(list)
    for run in runs:
        groups[recipe_of(run)].append(run)
    recipes = []
    for found in groups.values():
        values: dict[int, list[float]] = defaultdict(list)
        for run in found:
            values[int(run.params.get(SEED, 0))].append(run.metrics[choice.objective.metric])
        scores = {seed: statistics.fmean(values[seed]) for seed in sorted(values)}
        recipes.append(Recipe(0, 0, found, scores))
    if not choice.keeps_order:
        rank = choice.objective.rank
        recipes.sort(key=lambda recipe: (len(recipe.scores) == 1, rank(recipe.interval.mean)))
    data = dict.fromkeys(recipe.data_key for recipe in recipes)
    return [recipe for one in data for recipe in recipes if recipe.data_key == one]


def _is_shown(recipe: Recipe, recipes: Sequence[Recipe], top: int, reference: RecipeKey | None) -> bool:
    """Whether a recipe is among the first of its data set, or the reference."""
    place = [other for other in recipes if other.data == recipe.data].index(recipe)
    return place < top or recipe.key == reference


def _test(recipes: Sequence[Recipe], wanted: RecipeKey | None, by_rank: bool) -> tuple[list[ComparedRecipe], int]:
    """Tests each recipe against the reference of its data set. Returns the recipes and the size of the family."""
    references: dict[int, Recipe] = {}
    for recipe in recipes:
        references.setdefault(recipe.data, recipe)
        if recipe.key == wanted:
            references[recipe.data] = recipe
    pairs = [(one, references[one.data]) for one in recipes if one is not references[one.data]]
    if by_rank:
        known = {frozenset((one.number, two.number)) for one, two in pairs}
        pairs += [
            (two, one)
            for one, two in combinations(recipes, 2)
            if one.data == two.data and frozenset((one.number, two.number)) not in known
        ]
    tests = {(one.number, two.number): test_recipes(one.scores, two.scores) for one, two in pairs}
    p_values = {pair: test.p for pair, test in tests.items() if test and test.p is not None}
    adjusted = dict(zip(p_values, adjust_holm(list(p_values.values())), strict=True))
    compared = []
    for recipe in recipes:
        reference = references[recipe.data]
        pair = recipe.number, reference.number
        other = None if reference is recipe else reference
        compared.append(ComparedRecipe(recipe, other, tests.get(pair), adjusted.get(pair)))
    return compared, len(p_values)


def print_recipes(comparison: RecipeComparison) -> None:
    """Prints a line of numbers for each recipe, and below it what sets it apart and its test."""
    keys, several = comparison.keys(), len({one.recipe.data for one in comparison.recipes}) > 1
    for data, recipes in groupby(comparison.recipes, key=lambda one: one.recipe.data):
        table = list(recipes)
        if several:
            click.echo(f"data {data}: {describe_data(table[0].recipe.runs[0])}")
        click.echo(f"{'recipe':<8}{'seeds':<7}{comparison.metric:<22}{'deviation':<12}95% interval")
        for one in table:
            _print_recipe(one, comparison, keys)
        click.echo()
    print_notes(comparison.notes())


def _print_recipe(one: ComparedRecipe, comparison: RecipeComparison, keys: Sequence[str]) -> None:
    recipe, interval = one.recipe, one.recipe.interval
    deviation = "-" if interval.deviation is None else comparison.format(interval.deviation)
    numbers = f"{comparison.format(interval.mean):<22}{deviation:<12}{comparison.format_range(interval) or 'none'}"
    click.echo(f"{recipe.number:<8}{len(recipe.scores):<7}{numbers}")
    names = list(dict.fromkeys(run.name for run in recipe.runs))
    print_indented(f"runs: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}")
    print_indented(" ".join(f"{key}={recipe.runs[0].params[key]}" for key in keys if key in recipe.runs[0].params))
    if one.reference:
        print_indented(f"against recipe {one.reference.number}: {one.verdict}{_format_test(one, comparison)}")


def _format_test(one: ComparedRecipe, comparison: RecipeComparison) -> str:
    test = one.test
    if test is None:
        return ""
    size = f"{comparison.format_difference(test.difference)} {comparison.unit}".rstrip()
    if one.adjusted_p is None:
        return f" ({size})"
    seeds = " and ".join(map(str, test.seeds))
    way = f"paired over {seeds} seeds" if test.kind == "paired" else f"Welch's test of {seeds} seeds"
    interval = comparison.format_difference(test.low, test.high)
    return f" ({size}, 95% {interval}; {way}, adjusted p={one.adjusted_p:.2g}; seeds needed: {format_needed(test)})"


def format_needed(test: SeedTest) -> str:
    """Returns the number of seeds that a difference of the size seen needs."""
    if test.p is None:
        return ""
    return f"more than {MOST_SEEDS:,}" if test.seeds_needed is None else str(test.seeds_needed)
