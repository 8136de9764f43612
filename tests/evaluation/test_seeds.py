import numpy as np
import pytest
from scipy import stats

from mnist_exp.evaluation.seeds import Interval, test_recipes


def scores(*values: float, first: int = 0) -> dict[int, float]:
    return dict(enumerate(values, first))


def test_the_interval_is_that_of_student() -> None:
    values = np.array([0.97, 0.96, 0.98, 0.95])
    found = Interval.from_values(values)
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (found.mean, found.deviation) == (pytest.approx(0.965), pytest.approx(values.std(ddof=1)))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_or_equal_values_have_no_interval() -> None:
    one, equal = Interval.from_values(np.array([0.9])), Interval.from_values(np.array([0.9, 0.9 + 1e-12]))
    assert (one.mean, one.deviation, one.low, one.high) == (0.9, None, None, None)
    assert (equal.deviation, equal.low, equal.high) == (0.0, None, None)


def test_shared_seeds_are_paired_in_whatever_order() -> None:
    first, second = scores(0.91, 0.95, 0.93, 0.99), {3: 0.97, 1: 0.94, 2: 0.90, 7: 0.5}
    found = test_recipes(first, second)
    expected = stats.ttest_rel([0.95, 0.93, 0.99], [0.94, 0.90, 0.97])
    assert (found.kind, found.seeds) == ("paired", (3,))
    assert (found.difference, found.p) == (pytest.approx(0.02), pytest.approx(expected.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_other_seeds_get_welch() -> None:
    found = test_recipes(scores(0.91, 0.95, 0.93), scores(0.90, 0.80, 0.85, 0.99, first=5))
    expected = stats.ttest_ind([0.91, 0.95, 0.93], [0.90, 0.80, 0.85, 0.99], equal_var=False)
    assert (found.kind, found.seeds, found.p) == ("Welch", (3, 4), pytest.approx(expected.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_one_seed_cannot_be_tested() -> None:
    assert test_recipes(scores(0.9), scores(0.8)) is None
    assert test_recipes(scores(0.9), scores(0.8, 0.7, first=3)) is None


def test_without_a_spread_there_is_no_p() -> None:
    """Two seeds whose accuracies differ by the same single image do not show that every seed does."""
    for found in (
        test_recipes(scores(0.90, 0.92), scores(0.91, 0.93)),
        test_recipes(scores(0.9, 0.9), scores(0.8, 0.8, first=5)),
    ):
        assert (found.p, found.low, found.seeds_needed) == (None, None, None)
        assert found.difference != 0


@pytest.mark.parametrize(("effect", "pairs"), [(0.5, 34), (0.8, 15), (1.0, 10), (0.2, 199)])
def test_the_number_of_seeds_is_that_of_the_tables_of_the_paired_test(effect: float, pairs: int) -> None:
    """Cohen (1988), as G*Power 3.1 computes it: two-sided, alpha 0.05, power 0.80."""
    noise = np.array([-1.0, 1.0, -1.0, 1.0])
    differences = effect * noise.std(ddof=1) + noise
    found = test_recipes(scores(*differences), scores(0, 0, 0, 0))
    assert found.seeds_needed == pairs


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 64), (0.8, 26), (1.0, 17)])
def test_the_number_of_seeds_is_that_of_the_tables_of_two_groups(effect: float, seeds: int) -> None:
    noise = np.array([-1.0, 1.0, -1.0, 1.0])
    found = test_recipes(scores(*(effect * noise.std(ddof=1) + noise)), scores(*noise, first=9))
    assert found.seeds_needed == seeds


def test_seeds_that_nobody_can_train_are_not_counted() -> None:
    noise = np.array([-1.0, 1.0, -1.0, 1.0])
    assert test_recipes(scores(*(noise + 1e-6)), scores(0, 0, 0, 0)).seeds_needed is None
    assert test_recipes(scores(*(1000.0 + noise)), scores(0, 0, 0, 0)).seeds_needed == 2
