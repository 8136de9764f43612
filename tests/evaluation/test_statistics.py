import numpy as np
import pytest

from mnist_exp.evaluation.statistics import mcnemar, test_pair


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
