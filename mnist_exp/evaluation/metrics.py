"""From labels and probabilities to the numbers of a run. numpy and scikit-learn only."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NORMAL_95 = 1.959963984540054  # two-sided 95% quantile of the normal distribution


@dataclass(frozen=True)
class Evaluation:
    """A classifier's answers on one split, and what follows from them.

    labels: int (n,); probabilities: float32 (n, classes), rows that sum to 1; loss: mean cross-entropy in nats.
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
        """Counts, int (classes, classes): true classes in rows, predicted in columns."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.labels, self.predicted, labels=range(len(self.class_names)))

    @property
    def accuracy(self) -> float:
        """Share of images whose most probable class is the true one: the confusion matrix's trace / n."""
        return float(np.trace(self.confusion) / len(self.labels))

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson score interval of the accuracy."""
        return wilson(int(np.trace(self.confusion)), len(self.labels))

    @cached_property
    def loss(self) -> float:
        """Mean cross-entropy in nats, probabilities clipped at 1e-7 as Keras does."""
        chosen = self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)
        return float(-np.log(np.clip(chosen, 1e-7, 1 - 1e-7)).mean())

    @cached_property
    def per_class(self) -> dict[str, np.ndarray]:
        """precision, recall, f1 and support, each (classes,); 0 where a class was never predicted or never there."""
        from sklearn.metrics import precision_recall_fscore_support

        columns = precision_recall_fscore_support(
            self.labels, self.predicted, labels=range(len(self.class_names)), zero_division=0
        )
        return dict(zip(("precision", "recall", "f1", "support"), columns, strict=True))

    @cached_property
    def calibration_error(self) -> float:
        """Expected calibration error over 15 equal-width bins of confidence (Guo et al. 2017): 0 to 1, 0 is best."""
        confidence = self.probabilities.max(axis=1)
        right = self.predicted == self.labels
        bins = np.clip((confidence * 15).astype(int), 0, 14)
        gaps = [abs(right[bins == b].sum() - confidence[bins == b].sum(dtype=np.float64)) for b in range(15)]
        return float(sum(gaps) / len(self.labels))

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers worth comparing between runs."""
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
        """scikit-learn's classification report as text."""
        from sklearn.metrics import classification_report

        return str(
            classification_report(
                self.labels,
                self.predicted,
                labels=range(len(self.class_names)),
                target_names=self.class_names,
                digits=4,
                zero_division=0,
            )
        )

    def report_json(self) -> dict:
        """metrics, per_class and confusion as plain values."""
        rows = {
            name: {column: float(values[index]) for column, values in self.per_class.items()}
            for index, name in enumerate(self.class_names)
        }
        return {"metrics": self.metrics, "per_class": rows, "confusion": self.confusion.tolist()}


def wilson(right: int, n: int) -> tuple[float, float]:
    """95% Wilson score interval of right / n (Wilson 1927), within 0 to 1."""
    z2 = NORMAL_95**2
    centre = (right + z2 / 2) / (n + z2)
    half = NORMAL_95 / (n + z2) * math.sqrt(right * (n - right) / n + z2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)
