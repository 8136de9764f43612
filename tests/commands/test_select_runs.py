import json
from pathlib import Path

import numpy as np
import pytest
from made_up import MadeUpStore
from scipy.stats import binomtest

IMAGES = 400


@pytest.fixture
def home(made_up: MadeUpStore) -> Path:
    """run_main works beside the store."""
    return made_up.folder


@pytest.fixture
def equal_runs(made_up: MadeUpStore) -> MadeUpStore:
    """Five equally good runs, of which the best is called worse than by p alone."""
    generator = np.random.default_rng(3)
    for number in range(5):
        made_up.add(f"r{number}", right=generator.random(IMAGES) < 0.9, seed=number)
    return made_up


def rows(run_main, *arguments: str) -> list[dict]:
    status, out, err = run_main("compare", "--json", *arguments)
    assert status == 0, err
    found: list[dict] = json.loads(out)
    return found


@pytest.mark.usefixtures("equal_runs")
def test_all_pairs_are_the_family_if_the_ranking_chose_the_reference(run_main) -> None:
    found = rows(run_main)
    assert {row["val/family"] for row in found[1:]} == {10}
    assert {row["reference_by"] for row in found} == {"rank"}
    assert {row["reference"] for row in found[1:]} == {found[0]["id"]}
    assert all(row["val/p_adjusted"] >= row["val/p"] for row in found[1:])
    _, out, _ = run_main("compare")
    words = " ".join(out.split())
    assert "Tests in the family: 10 (validation). They are all pairs" in words
    assert "because the ranking chose the reference" in words
    assert "adjusted p=" in words


@pytest.mark.usefixtures("equal_runs")
@pytest.mark.parametrize("arguments", [("r1", "r0", "r2", "r3", "r4"), ("--reference", "r1")])
def test_the_others_are_the_family_if_the_user_named_the_reference(run_main, arguments) -> None:
    found = rows(run_main, *arguments)
    (named,) = (row for row in found if row["name"] == "r1")
    others = [row for row in found if row["name"] != "r1"]
    assert {row["reference"] for row in others} == {named["id"]}
    assert {row["val/family"] for row in others} == {4}
    assert {row["reference_by"] for row in found} == {"user"}
    lowest = min(others, key=lambda row: row["val/p"])
    assert lowest["val/p_adjusted"] == pytest.approx(min(1, 4 * lowest["val/p"]))


@pytest.mark.usefixtures("equal_runs")
@pytest.mark.parametrize(
    "arguments", [("best", "r0", "r1"), ("--reference", "best"), ("r0", "r1", "--sort", "val/accuracy")]
)
def test_the_name_best_and_a_ranking_of_named_runs_are_choices_by_rank(run_main, arguments) -> None:
    assert {row["reference_by"] for row in rows(run_main, *arguments)} == {"rank"}


def test_a_difference_that_only_one_test_would_show_is_not_called_one(run_main, made_up: MadeUpStore) -> None:
    right = np.ones(IMAGES, bool)
    for number, wrong in enumerate((0, 7, 8, 6)):
        made_up.add(f"r{number}", right=right & (np.arange(IMAGES) >= wrong), seed=number)
    assert binomtest(0, 7).pvalue < 0.05
    found = {row["name"]: row for row in rows(run_main)}
    assert found["r1"]["val/p"] == pytest.approx(binomtest(0, 7).pvalue)
    assert found["r1"]["val/p_adjusted"] == pytest.approx(5 * binomtest(0, 7).pvalue)
    _, out, _ = run_main("compare")
    words = " ".join(out.split())
    assert "val against the first: no difference shown (0 against 7 of 400, adjusted p=0.078)" in words
    assert "val against the first: worse (0 against 8 of 400, adjusted p=0.047)" in words


def test_unlike_data_are_ranked_apart(run_main, made_up: MadeUpStore) -> None:
    for number in range(4):
        made_up.add(f"easy{number}", 0.99 - number / 100, dataset__digest="e" * 64, dataset__name="easy", seed=number)
        made_up.add(f"hard{number}", 0.50 - number / 100, seed=number)
    made_up.add("split", 0.75, dataset__validation_digest="w" * 64)
    assert [row["name"] for row in rows(run_main, "--top", "2")] == ["easy0", "easy1", "split", "hard0", "hard1"]
    _, out, _ = run_main("compare", "--top", "2")
    assert [line.split(": ")[0] for line in out.splitlines() if line.startswith("data ")] == [
        "data 1",
        "data 2",
        "data 3",
    ]
    assert "The runs were scored on 3 sets of images. They are ranked only within each." in out
    assert [row["name"] for row in rows(run_main, "--where", "dataset.name=easy", "--top", "1")] == ["easy0"]


def test_further_data_are_said(run_main, made_up: MadeUpStore) -> None:
    for number in range(7):
        made_up.add(f"r{number}", 0.9 - number / 100, dataset__digest=str(number) * 64)
    assert [row["name"] for row in rows(run_main)] == [f"r{number}" for number in range(5)]
    _, out, _ = run_main("compare")
    assert "Runs of further data sets are left out" in out


@pytest.mark.usefixtures("equal_runs")
@pytest.mark.parametrize("arguments", [(), ("r0", "r1"), ("--by-recipe",)])
def test_a_metric_that_no_run_has_is_an_error_with_the_nearest_first(run_main, arguments) -> None:
    status, out, err = run_main("compare", *arguments, "--sort", "val/acuracy")
    assert (status, out) == (1, "")
    assert "--sort must be a metric of the runs, but got 'val/acuracy'; there are val/accuracy" in err


def test_runs_without_the_metric_are_last_and_counted(run_main, made_up: MadeUpStore) -> None:
    made_up.add("old", 0.99)
    made_up.add("diverged", 0.98, metrics={"val/cross_entropy": float("nan")})
    made_up.add("second", 0.97, metrics={"val/cross_entropy": 0.2})
    made_up.add("first", 0.96, metrics={"val/cross_entropy": 0.1})
    names = ["first", "second", "diverged", "old"]
    assert [row["name"] for row in rows(run_main, "--sort", "val/cross_entropy")][:2] == names[:2]
    _, out, _ = run_main("compare", "--sort", "val/cross_entropy")
    assert "2 of 4 runs have no finite val/cross_entropy. They are last." in out
    assert "cross-entropy 0.1000" in out
    ranked = rows(run_main, *names[::-1], "--sort", "val/cross_entropy")
    assert [row["name"] for row in ranked][:2] == names[:2]


def test_only_keys_that_differ_are_shown_and_the_others_counted(run_main, made_up: MadeUpStore) -> None:
    made_up.add("mlp", 0.9, optimizer___target_="a.b")
    made_up.add("cnn", 0.8, model="cnn", model__kernel=3, model__pooling=2, optimizer___target_="a.b")
    _, out, _ = run_main("compare")
    assert "model=cnn" in out
    assert "model.kernel" not in out, "it follows from the choice"
    assert "learning_rate" not in out
    assert "6 parameters are equal in all runs." in out


def test_a_mean_of_seeds_is_not_tested_by_its_best_seed(run_main, equal_runs: MadeUpStore) -> None:
    best = equal_runs.client.search_runs([equal_runs.experiment], "attributes.run_name = 'r0'")[0].info.run_id
    equal_runs.add("trial", 0.1, tags={"kind": "trial", "model_run": best, "trial": "0"})
    (found,) = (row for row in rows(run_main) if row["name"] == "trial")
    assert found["val/p"] is None
    _, out, _ = run_main("compare")
    assert "Means of several seeds, which are not tested: trial; use --by-recipe." in " ".join(out.split())
