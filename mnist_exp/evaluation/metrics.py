"""Computes the metrics of a run from labels and probabilities."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mnist_exp.data.peculiarities import is_unequal

BINS = 15  # of the calibration error
LEAST = float(np.finfo(np.float32).tiny)  # 1.2e-38: what TensorFlow computes below it is 0
SPLITS = {"val": "validation", "test": "test"}  # names of splits in metrics, and in words
CLASS_METRICS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Evaluation:
    """The answers of a classifier on one split, and the metrics that follow from them.

    labels: int (n,). probabilities: float32 (n, classes); each row sums to 1. logits: float32 (n, classes), the input
    of the softmax that made the probabilities; None if a net has none. loss: what training minimized, as Keras reports
    it for this split; None if it is not known.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]
    logits: np.ndarray | None = None
    loss: float | None = None

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
    def majority_accuracy(self) -> float:
        """The accuracy of always answering with the class that has the most images in this split."""
        return float(np.bincount(self.labels).max() / len(self.labels))

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have images, each of the same weight."""
        return float(self.per_class["recall"][self.present].mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson score interval (Wilson 1927) of the accuracy."""
        from scipy.stats import binomtest

        low, high = binomtest(int(np.trace(self.confusion)), len(self.labels)).proportion_ci(method="wilson")
        return float(low), float(high)

    @cached_property
    def log_likelihoods(self) -> np.ndarray:
        """The logarithm of the probability of each image's true class: float64 (n,).

        It is computed from the logits, so it is exact if the probability is too small for a float32. Without logits a
        probability counts as at least 1.2e-38, the smallest normal float32.
        """
        from scipy.special import log_softmax

        if self.logits is not None:
            return self._of_true_class(log_softmax(self.logits.astype(np.float64), axis=1))
        return np.log(np.maximum(self._of_true_class(self.probabilities).astype(np.float64), LEAST))

    @property
    def cross_entropy(self) -> float:
        """The mean cross-entropy in nats, without label smoothing and penalties. Runs are compared by it."""
        return float(-self.log_likelihoods.mean())

    @cached_property
    def present(self) -> np.ndarray:
        """Whether a class has images in this split: bool (classes,)."""
        return np.bincount(self.labels, minlength=len(self.class_names)) > 0

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

    def has_diverged(self, train_loss: float) -> bool:
        """Whether the training has diverged: its loss and the cross-entropy are more than twice that of guessing.

        train_loss: of the epoch whose weights were evaluated. A net that overfits has a low loss there, and one that
        has learned nothing is as good as guessing, log(classes), so neither has diverged.
        """
        return min(train_loss, self.cross_entropy) > 2 * math.log(len(self.class_names))

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics that a run logs, by name."""
        low, high = self.interval
        return {
            **({} if self.loss is None else {"loss": self.loss}),
            "cross_entropy": self.cross_entropy,
            "accuracy": self.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "majority_accuracy": self.majority_accuracy,
            **({"balanced_accuracy": self.balanced_accuracy} if is_unequal(self.labels) else {}),
            **self._macro_averages(self.present),
            **({} if self.present.all() else {"absent_classes": float((~self.present).sum())}),
            "calibration_error": self.calibration_error,
        }

    @property
    def first_metrics(self) -> dict[str, float]:
        """The metrics that have another definition since version 2 of the definitions, as version 1 defined them.

        The loss is the cross-entropy of probabilities clipped at 1e-7. Absent classes count as 0 in macro averages.
        """
        clipped = np.clip(self._of_true_class(self.probabilities).astype(np.float64), 1e-7, 1 - 1e-7)
        return {"loss": float(-np.log(clipped).mean()), **self._macro_averages(np.full_like(self.present, True))}

    def report(self) -> str:
        """Returns scikit-learn's classification report as text. Classes without images are named below it."""
        from sklearn.metrics import classification_report

        shown = {"labels": np.flatnonzero(self.present), "target_names": np.array(self.class_names)[self.present]}
        text = str(classification_report(self.labels, self.predicted, **shown, digits=4, zero_division=0))
        absent = ", ".join(np.array(self.class_names)[~self.present])
        return f"{text}\nno images of: {absent}\n" if absent else text

    def report_json(self) -> dict:
        """Returns metrics, per_class and confusion as plain values."""
        rows = {
            name: {column: float(values[index]) for column, values in self.per_class.items()}
            for index, name in enumerate(self.class_names)
        }
        return {"metrics": self.metrics, "per_class": rows, "confusion": self.confusion.tolist()}

    def _of_true_class(self, values: np.ndarray) -> np.ndarray:
        """Returns for each image the value of its true class: (n,). values: (n, classes)."""
        return values[np.arange(len(self.labels)), self.labels]

    def _macro_averages(self, classes: np.ndarray) -> dict[str, float]:
        """Returns the means over these classes, bool (classes,)."""
        return {f"macro_{name}": float(self.per_class[name][classes].mean()) for name in CLASS_METRICS}


def table_of_scores(
    metrics: Mapping[str, float], splits: Sequence[str]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns the header and a row for each of these splits. metrics: by name, such as `val/accuracy`.

    Beside the accuracy stands that of always answering with the most frequent class and, where the classes are unequal,
    the balanced accuracy.
    """
    columns = {"balanced_accuracy": "balanced", "majority_accuracy": "majority"}
    shown = {name: word for name, word in columns.items() if any(f"{split}/{name}" in metrics for split in splits)}
    rows = []
    for split in splits:
        accuracy, interval, *others = format_scores(metrics, split)
        beside = (f"{metrics[key]:.2%}" if (key := f"{split}/{name}") in metrics else "" for name in shown)
        rows.append((SPLITS[split], accuracy, interval, *beside, *others))
    return ("", "accuracy", "95% interval", *shown.values(), "macro F1", "cross-entropy"), rows


def format_scores(metrics: Mapping[str, float], split: str) -> tuple[str, str, str, str]:
    """Returns accuracy, its 95% interval, macro F1 and cross-entropy of a split as text. metrics: by name."""
    accuracy, low, high = (f"{metrics[f'{split}/accuracy{end}']:.2%}" for end in ("", "_low", "_high"))
    absent = metrics.get(f"{split}/absent_classes", 0.0)
    left_out = f" ({absent:.0f} absent)" if absent else ""
    cross_entropy = f"{metrics[f'{split}/cross_entropy']:.4g}"
    return accuracy, f"{low.removesuffix('%')}-{high}", f"{metrics[f'{split}/macro_f1']:.4f}{left_out}", cross_entropy
