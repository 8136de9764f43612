import csv
import io
import json
from pathlib import Path

import pytest
from made_up import MadeUpStore
from scipy import stats

WIDE, NARROW = {"model__widths": "[64]"}, {"model__widths": "[16]"}
GOOD, POOR = (0.95, 0.96, 0.955, 0.948), (0.90, 0.92, 0.91, 0.899)


@pytest.fixture
def home(made_up: MadeUpStore) -> Path:
    """run_main works beside the store."""
    return made_up.folder


@pytest.fixture
def two_recipes(made_up: MadeUpStore) -> MadeUpStore:
    """A wide and a narrow net, with the seeds 0 to 3 each. Names and folders differ."""
    for seed, (good, poor) in enumerate(zip(GOOD, POOR, strict=True)):
        made_up.add(f"wide_{seed}", good, seed=seed, **WIDE)
        made_up.add(f"narrow_{seed}", poor, seed=seed, tracking__folder=f"other{seed}", **NARROW)
    return made_up


def recipes(run_main, *arguments: str) -> list[dict]:
    status, out, err = run_main("compare", "--by-recipe", "--json", *arguments)
    assert status == 0, err
    found: list[dict] = json.loads(out)
    return found


@pytest.mark.usefixtures("two_recipes")
def test_runs_that_differ_in_the_seed_are_one_recipe(run_main) -> None:
    wide, narrow = recipes(run_main)
    assert (wide["seeds"], narrow["seeds"]) == (4, 4)
    assert (wide["model.widths"], narrow["model.widths"]) == ("[64]", "[16]")
    assert wide["mean"] == pytest.approx(sum(GOOD) / 4)
    expected = stats.ttest_rel(POOR, GOOD)
    assert (narrow["test"], narrow["p"]) == ("paired", pytest.approx(expected.pvalue))
    assert narrow["difference"] == pytest.approx(sum(POOR) / 4 - sum(GOOD) / 4)
    assert narrow["seeds_needed"] >= 2
    assert (wide["reference"], narrow["reference"], narrow["reference_by"]) == (None, 1, "rank")


@pytest.mark.usefixtures("two_recipes")
def test_the_terminal_has_the_numbers_within_80_columns(run_main) -> None:
    status, out, _ = run_main("compare", "--by-recipe")
    assert status == 0
    words = " ".join(out.split())
    assert "1 4 95.32% 0.54%" in words
    assert "against recipe 1: lower (-4.60 points, 95% " in words
    assert "paired over 4 seeds" in words
    assert "the ranking chose the reference" in words
    assert max(map(len, out.splitlines())) <= 80


def test_all_pairs_are_corrected_if_the_ranking_chose_the_reference(run_main, made_up: MadeUpStore) -> None:
    for place, mean in enumerate((0.90, 0.905, 0.91, 0.915)):
        for seed, noise in enumerate((0.0, 0.004, -0.003)):
            made_up.add(f"r{place}", mean + noise * (1 + place), seed=seed, training__epochs=place)
    ranked = recipes(run_main)
    named = recipes(run_main, "--reference", ranked[0]["runs"][0])
    assert {row["family"] for row in ranked[1:]} == {6}
    assert {row["family"] for row in named[1:]} == {3}
    assert {row["reference_by"] for row in named} == {"user"}
    lowest = min(row["p"] for row in named[1:])
    assert min(row["p_adjusted"] for row in named[1:]) == pytest.approx(min(3 * lowest, 1))


def test_seeds_that_differ_are_not_paired(run_main, made_up: MadeUpStore) -> None:
    for seed, (good, poor) in enumerate(zip(GOOD, POOR, strict=True)):
        made_up.add("wide", good, seed=seed, **WIDE)
        made_up.add("narrow", poor, seed=seed + 10, **NARROW)
    _, narrow = recipes(run_main)
    assert narrow["test"] == "Welch"
    assert narrow["p"] == pytest.approx(stats.ttest_ind(POOR, GOOD, equal_var=False).pvalue)


def test_one_seed_has_no_interval_and_does_not_lead(run_main, made_up: MadeUpStore) -> None:
    made_up.add("lucky", 0.99, model__widths="[99]")
    for seed, accuracy in enumerate(GOOD):
        made_up.add("wide", accuracy, seed=seed, **WIDE)
    wide, lucky = recipes(run_main)
    assert (wide["seeds"], lucky["seeds"]) == (4, 1)
    assert (lucky["deviation"], lucky["low"], lucky["p"]) == (None, None, None)
    _, out, _ = run_main("compare", "--by-recipe")
    assert "not tested: one seed" in out
    assert "There is no interval for one seed" in " ".join(out.split())
    assert "nan" not in out


def test_a_seed_that_was_trained_twice_counts_once(run_main, made_up: MadeUpStore) -> None:
    """Its results are not independent: ten repetitions of one seed would make the interval three times as small."""
    for accuracy in (0.95, 0.95, 0.95, 0.97):
        made_up.add("again", accuracy, seed=1)
    made_up.add("other", 0.97, seed=2)
    (found,) = recipes(run_main)
    assert (found["seeds"], len(found["runs"])) == (2, 5)
    assert found["mean"] == pytest.approx((0.955 + 0.97) / 2)


def test_a_trial_with_seeds_stands_for_its_executions(run_main, made_up: MadeUpStore) -> None:
    trial = made_up.add("t", 0.5, tags={"kind": "trial", "model_run": "x", "trial": "0"})
    cut = made_up.add("c", 0.5, tags={"kind": "trial", "model_run": "x", "pruned": "true"}, training__epochs=9)
    for seed, accuracy in enumerate(GOOD):
        inside = {"kind": "execution", "mlflow.parentRunId": trial}
        made_up.add(f"t-{seed}", accuracy, tags=inside, seed=seed)
        made_up.add(f"c-{seed}", 0.99, tags={**inside, "mlflow.parentRunId": cut}, seed=seed, training__epochs=9)
    for arguments in ((), ("t",)):
        (found,) = recipes(run_main, *arguments)
        assert (found["seeds"], found["mean"]) == (4, pytest.approx(sum(GOOD) / 4))


def test_unlike_data_are_not_ranked_together(run_main, two_recipes: MadeUpStore) -> None:
    for seed in range(3):
        two_recipes.add("easy", 0.99 + seed / 1000, seed=seed, dataset__validation_digest="e" * 64, **WIDE)
    found = recipes(run_main)
    assert [row["reference"] for row in found] == [None, None, 2]
    status, out, _ = run_main("compare", "--by-recipe")
    assert status == 0
    assert out.count("data 1: ") == out.count("data 2: ") == 1
    assert "They are ranked only within each." in out


def test_a_diverged_seed_is_said(run_main, made_up: MadeUpStore) -> None:
    for seed, loss in enumerate((0.3, 0.31, float("nan"), float("inf"))):
        made_up.add("r", 0.9, seed=seed, metrics={"val/loss": loss})
    (found,) = recipes(run_main, "--sort", "val/loss")
    assert (found["seeds"], found["mean"]) == (2, pytest.approx(0.305))
    _, out, _ = run_main("compare", "--by-recipe", "--sort", "val/loss")
    assert "2 runs have no finite val/loss" in out


@pytest.mark.usefixtures("two_recipes")
def test_named_runs_keep_their_order_and_the_first_is_the_reference(run_main) -> None:
    narrow, wide = recipes(run_main, "narrow_0", "narrow_1", "wide_0", "wide_1")
    assert (narrow["model.widths"], wide["reference"], wide["reference_by"]) == ("[16]", 1, "user")


@pytest.mark.usefixtures("two_recipes")
def test_tables_for_a_paper_are_all_that_is_printed(run_main) -> None:
    for kind, first in (("--markdown", "| recipe |"), ("--latex", "% needs"), ("--csv", "recipe,data,seeds")):
        status, out, err = run_main("compare", "--by-recipe", kind)
        assert (status, out.startswith(first)) == (0, True)
        assert "Holm" in err
    _, out, _ = run_main("compare", "--by-recipe", "--csv")
    assert [row["seeds"] for row in csv.DictReader(io.StringIO(out))] == ["4", "4"]


def test_figures_of_recipes_are_refused(run_main, two_recipes: MadeUpStore) -> None:
    status, out, err = run_main("compare", "--by-recipe", "--figure", "x.png")
    assert (status, out) == (1, "")
    assert "leave out --figure and --html" in err
