import numpy as np
import pytest
from scipy.stats import binomtest

from mnist_exp.evaluation.statistics import PairedTest, adjust_holm, correct_all, mcnemar, test_pair, test_pairs


def predictions(labels, predicted, digests):
    return {
        "val_labels": np.array(labels),
        "val_predicted": np.array(predicted),
        "val_digests": np.array(digests, dtype="S32"),
    }


def test_mcnemar_looks_only_at_images_on_which_the_two_differ():
    first = np.array([True] * 90 + [True] * 9 + [False] * 1)
    second = np.array([True] * 90 + [False] * 9 + [True] * 1)
    found = mcnemar(first, second)
    assert (found.first_only, found.second_only, found.images) == (9, 1, 100)
    assert found.p == pytest.approx(2 * 11 / 2**10)  # at most 1 of 10 heads, either way
    assert found.verdict == "better"
    assert mcnemar(second, first).verdict == "worse"


def test_equal_runs_and_small_differences_are_called_that():
    same = np.array([True, False, True])
    assert mcnemar(same, same).p == 1
    assert mcnemar(same, same).verdict == "no difference shown"
    assert mcnemar(np.array([True] * 5), np.array([False] * 2 + [True] * 3)).verdict == "no difference shown"


def test_only_identical_images_count_in_whatever_order():
    first = predictions([1, 2, 3, 4], [1, 2, 0, 4], ["a", "b", "c", "d"])
    second = predictions([4, 3, 9, 2], [0, 3, 9, 2], ["d", "c", "x", "b"])
    found = test_pair(first, second, "val")
    assert (found.first_only, found.second_only, found.images) == (1, 1, 3)


def test_without_common_images_there_is_no_test():
    assert test_pair(predictions([1], [1], ["a"]), predictions([1], [1], ["b"]), "val") is None
    assert test_pair(predictions([1], [1], ["a"]), None, "val") is None
    assert test_pair(predictions([1], [1], ["a"]), predictions([1], [1], ["a"]), "test") is None


def test_holm_is_that_of_the_paper():
    """Worked by hand: the smallest p times 4, the next times 3, never less than the one before, at most 1."""
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert adjust_holm([]) == []


def test_the_verdict_follows_the_corrected_p():
    tests = [PairedTest(9, 1, 100, 0.02), PairedTest(1, 9, 100, 0.02), PairedTest(30, 1, 100, 1e-6)]
    found = correct_all(tests)
    assert [test.adjusted_p for test in found] == pytest.approx([0.04, 0.04, 3e-6])
    assert [test.verdict for test in found] == ["better", "worse", "better"]
    assert [test.verdict for test in correct_all([*tests, *tests])][:2] == ["no difference shown"] * 2
    assert found[0].p == 0.02


def test_all_pairs_are_tested_as_one_by_one():
    generator = np.random.default_rng(0)
    labels, digests = generator.integers(3, size=60), [f"{number:02d}" for number in range(60)]
    runs = [predictions(labels, generator.integers(3, size=60), digests) for _ in range(4)]
    runs += [None, predictions(labels[:30], generator.integers(3, size=30), digests[30:])]
    pairs = [(one, two) for one in range(6) for two in range(one + 1, 6)]
    found = test_pairs(runs, pairs, "val")
    for one, two in pairs:
        assert found.get((one, two)) == test_pair(runs[one], runs[two], "val")
    assert set(found) == {pair for pair in pairs if 4 not in pair}
    one = found[0, 1]
    assert one.p == pytest.approx(binomtest(one.first_only, one.first_only + one.second_only).pvalue)
