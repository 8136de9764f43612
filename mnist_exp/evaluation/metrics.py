"""Computes the metrics of a run from labels and probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BINS = 15  # of the calibration error


@dataclass(frozen=True)
class Evaluation:
    """The answers of a classifier on one split, and the metrics that follow from them.

    labels: int (n,). probabilities: float32 (n, classes); each row sums to 1.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]

    @cached_property
    def predicted(self) -> np.ndarray:
        """The most probable class of each image: int (n,)."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confusion(self) -> np.ndarray:
        """The confusion matrix, int (classes, classes): true classes in rows, predicted classes in columns."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.labels, self.predicted, labels=range(len(self.class_names)))

    @property
    def accuracy(self) -> float:
        """The share of images whose most probable class is the true one: the trace of the confusion matrix / n."""
        return float(np.trace(self.confusion) / len(self.labels))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson score interval (Wilson 1927) of the accuracy."""
        from scipy.stats import binomtest

        low, high = binomtest(int(np.trace(self.confusion)), len(self.labels)).proportion_ci(method="wilson")
        return float(low), float(high)

    @cached_property
    def loss(self) -> float:
        """The mean cross-entropy in nats. Probabilities are clipped at 1e-7, like Keras does."""
        chosen = self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)
        return float(-np.log(np.clip(chosen, 1e-7, 1 - 1e-7)).mean())

    @cached_property
    def per_class(self) -> dict[str, np.ndarray]:
        """precision, recall, f1 and support, each (classes,); 0 for a class that is never predicted or absent."""
        from sklearn.metrics import precision_recall_fscore_support

        columns = precision_recall_fscore_support(
            self.labels, self.predicted, labels=range(len(self.class_names)), zero_division=0
        )
        return dict(zip(("precision", "recall", "f1", "support"), columns, strict=True))

    @cached_property
    def calibration_error(self) -> float:
        """The expected calibration error over equal bins of confidence (Guo et al. 2017): 0 to 1, 0 is best."""
        confidence = self.probabilities.max(axis=1)
        correct = self.predicted == self.labels
        bins = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
        gaps = np.bincount(bins, correct - confidence.astype(np.float64))
        return float(np.abs(gaps).sum() / len(self.labels))

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics that a run logs, by name."""
        low, high = self.interval
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            **{f"macro_{name}": float(self.per_class[name].mean()) for name in ("precision", "recall", "f1")},
            "calibration_error": self.calibration_error,
        }

    def report(self) -> str:
        """Returns scikit-learn's classification report as text."""
        from sklearn.metrics import classification_report

        names = {"labels": range(len(self.class_names)), "target_names": self.class_names}
        return str(classification_report(self.labels, self.predicted, **names, digits=4, zero_division=0))

    def report_json(self) -> dict:
        """Returns metrics, per_class and confusion as plain values."""
        rows = {
            name: {column: float(values[index]) for column, values in self.per_class.items()}
            for index, name in enumerate(self.class_names)
        }
        return {"metrics": self.metrics, "per_class": rows, "confusion": self.confusion.tolist()}


def format_scores(metrics: Mapping[str, float], split: str) -> tuple[str, str, str, str]:
    """Returns accuracy, its 95% interval, macro F1 and loss of a split as text. metrics: by name: `val/loss`."""
    accuracy, low, high = (f"{metrics[f'{split}/accuracy{end}']:.2%}" for end in ("", "_low", "_high"))
    return accuracy, f"{low} - {high}", f"{metrics[f'{split}/macro_f1']:.4f}", f"{metrics[f'{split}/loss']:.4f}"
