import numpy as np
import pytest

from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.splits import Splits
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.evaluation.predictions import read_predictions, write_predictions

NAMES = tuple("0123456789")
N = 12_000


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The file of a net that is sure of itself, and the evaluation in it. Some probabilities are 0 as a float32."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, N)
    logits = rng.normal(0, 3, (N, 10)).astype(np.float32)
    logits[np.arange(N), labels] += np.where(rng.random(N) < 0.95, 8, -150).astype(np.float32)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    evaluation = Evaluation(labels, exponentials / exponentials.sum(axis=1, keepdims=True), NAMES, logits)
    part = ImageSet(np.zeros((N, 1, 1, 1), np.uint8), labels)
    path = tmp_path_factory.mktemp("kept") / "predictions.npz"
    write_predictions(path, Splits("mine", part, part, None, NAMES, "", "0" * 64), {"val": evaluation})
    return path, evaluation


def test_metrics_that_are_computed_from_the_file_are_those_that_were_logged(kept):
    path, evaluation = kept
    arrays = read_predictions(path)
    assert (arrays["val_probabilities"][np.arange(N), evaluation.labels] == 0).any()
    again = Evaluation(arrays["val_labels"].astype(int), arrays["val_probabilities"], NAMES)
    metrics = {**again.metrics, "cross_entropy": -arrays["val_log_likelihoods"].mean(dtype=np.float64)}
    assert metrics == pytest.approx(evaluation.metrics, rel=1e-6)


def test_the_file_of_12_000_images_is_small(kept):
    assert kept[0].stat().st_size < 600_000
