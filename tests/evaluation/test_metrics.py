import re

import numpy as np
import pytest

from mnist_exp.evaluation.metrics import Evaluation, format_scores

NAMES = ("ant", "bee", "cow")


@pytest.fixture
def evaluation():
    """Five answers, the fourth wrong; no image is a cow, none was called one."""
    labels = np.array([0, 0, 1, 1, 1])
    probabilities = np.array([[0.9, 0.1, 0], [0.6, 0.4, 0], [0.2, 0.8, 0], [0.7, 0.3, 0], [0, 1, 0]], np.float32)
    return Evaluation(labels, probabilities, NAMES)


def test_confusion_has_true_classes_in_rows_and_absent_classes_too(evaluation):
    assert evaluation.confusion.tolist() == [[2, 0, 0], [1, 2, 0], [0, 0, 0]]


def test_accuracy_is_the_trace_over_n(evaluation):
    assert evaluation.accuracy == pytest.approx(4 / 5)
    assert evaluation.accuracy == np.trace(evaluation.confusion) / evaluation.confusion.sum()


def test_the_cross_entropy_is_not_clipped_and_stays_finite_for_a_certain_mistake(evaluation):
    assert evaluation.cross_entropy == pytest.approx(-np.log([0.9, 0.6, 0.8, 0.3, 1]).mean(), rel=1e-6)
    certain = Evaluation(np.array([2]), np.array([[1, 0, 0]], np.float32), NAMES)
    assert certain.cross_entropy == pytest.approx(87.336, abs=1e-3)  # of the smallest normal float32


def test_with_logits_a_probability_that_is_0_as_a_float32_counts_as_it_is():
    logits = np.array([[0, 200, 0], [1, 1, 1]], np.float32)
    probabilities = np.array([[0, 1, 0], [1 / 3] * 3], np.float32)
    found = Evaluation(np.array([0, 2]), probabilities, NAMES, logits)
    assert found.log_likelihoods == pytest.approx([-200, -np.log(3)], rel=1e-12)


def test_absent_classes_are_left_out_of_macro_averages_and_counted():
    """A perfect classifier of labels 1 to 3, of ten classes."""
    labels = np.array([1, 2, 3] * 4)
    found = Evaluation(labels, np.eye(10, dtype=np.float32)[labels], tuple("0123456789"))
    for name in ("macro_f1", "macro_precision", "macro_recall"):
        assert found.metrics[name] == 1.0
    assert found.metrics["absent_classes"] == 7
    assert "no images of: 0, 4, 5, 6, 7, 8, 9" in found.report()
    assert re.search(r"macro avg +1\.0000 +1\.0000 +1\.0000", found.report())
    scores = {f"val/{name}": value for name, value in found.metrics.items()}
    assert format_scores(scores, "val")[2] == "1.0000 (7 absent)"


def test_no_class_is_absent_from_a_split_that_has_them_all():
    labels = np.arange(3)
    found = Evaluation(labels, np.eye(3, dtype=np.float32), NAMES)
    assert "absent_classes" not in found.metrics
    assert "no images" not in found.report()


def test_the_first_definitions_clip_probabilities_and_count_absent_classes_as_0(evaluation):
    first = evaluation.first_metrics
    assert first["loss"] == pytest.approx(-np.log([0.9, 0.6, 0.8, 0.3, 1 - 1e-7]).mean(), rel=1e-6)
    assert first["macro_f1"] == pytest.approx((0.8 + 0.8 + 0) / 3)
    assert evaluation.metrics["macro_f1"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("train_loss", "logit", "diverged"),
    [(2e22, 1e20, True), (0.1, 50.0, False), (1.1, 0.0, False), (30.0, 0.1, False)],
    ids=["exploded", "overfits", "learned nothing", "began badly and is good"],
)
def test_a_training_has_diverged_if_it_is_much_worse_than_guessing(train_loss, logit, diverged):
    wrong = Evaluation(np.array([0]), np.array([[0, 1, 0]], np.float32), NAMES, np.array([[0, logit, 0]], np.float32))
    assert wrong.has_diverged(train_loss) is diverged


def test_per_class_numbers(evaluation):
    assert evaluation.per_class["precision"] == pytest.approx([2 / 3, 1, 0])
    assert evaluation.per_class["recall"] == pytest.approx([1, 2 / 3, 0])
    assert evaluation.per_class["f1"] == pytest.approx([0.8, 0.8, 0])
    assert evaluation.per_class["support"].tolist() == [2, 3, 0]


def interval(right, n):
    probabilities = np.zeros((n, 2), np.float32)
    probabilities[:right, 0] = probabilities[right:, 1] = 1
    return Evaluation(np.zeros(n, int), probabilities, ("a", "b")).interval


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 2, 0.0945, 0.9055)],
)
def test_wilson_interval(right, n, low, high):
    assert interval(right, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_bounds_lie_where_the_normal_test_is_just_met():
    for bound in interval(97, 100):
        assert abs(0.97 - bound) / np.sqrt(bound * (1 - bound) / 100) == pytest.approx(1.959964, rel=1e-6)


def test_calibration_error_is_nothing_for_honest_and_a_half_for_boastful_answers():
    labels = np.array([0, 1] * 50)
    sure = np.tile(np.array([[1, 0]], np.float32), (100, 1))
    unsure = np.tile(np.array([[0.5 + 1e-6, 0.5 - 1e-6]], np.float32), (100, 1))
    assert Evaluation(labels, sure, ("a", "b")).calibration_error == pytest.approx(0.5)
    assert Evaluation(labels, unsure, ("a", "b")).calibration_error == pytest.approx(0, abs=1e-5)


def test_report_names_the_classes_and_its_json_holds_the_same_numbers(evaluation):
    assert all(name in evaluation.report() for name in NAMES)
    found = evaluation.report_json()
    assert found["metrics"]["accuracy"] == evaluation.accuracy
    assert found["per_class"]["bee"]["recall"] == pytest.approx(2 / 3)
    assert found["confusion"] == evaluation.confusion.tolist()
