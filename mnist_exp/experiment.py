"""The story of one run: data, model, training, evaluation, record."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from mnist_exp import data, optimizers, recording, tracking, training
from mnist_exp.checks import check
from mnist_exp.composition import build, differences
from mnist_exp.data import Splits
from mnist_exp.errors import TrackingError
from mnist_exp.evaluation import Evaluation
from mnist_exp.tracking import Record, Tracking
from mnist_exp.training import History, Training

if TYPE_CHECKING:
    import keras
    import numpy as np


@dataclass(frozen=True)
class Result:
    """What a run returns: plain values, and where its model is.

    metrics: val/ and test/ numbers of the weights used; history: one list an epoch of each of Keras's metrics; seconds:
    wall time of each part of the run.
    """

    name: str
    run_id: str | None
    metrics: dict[str, float]
    history: dict[str, list[float]]
    used_epoch: int
    parameters: int
    class_names: tuple[str, ...]
    seconds: dict[str, float]
    trouble: str | None = None
    uri: str | None = None

    def load_model(self) -> "keras.Model":
        """The trained model, from the tracking store. Raises TrackingError where the run kept none."""
        if self.run_id is None:
            raise TrackingError("a run keeps its model only while it is tracked, but got tracking=off")
        return tracking.load_model(self.uri, self.run_id)


class Listener:
    """Hears how a run goes; this one keeps silent."""

    def data(self, splits: Splits) -> None:
        """The data set is loaded and split."""

    def record(self, record: Record) -> None:
        """The run's folder is there."""

    def model(self, model: "keras.Model", settings: Training, differing: Callable[[], list[str]]) -> None:
        """Training is about to begin; differing() tells what sets the config apart from the defaults."""

    def step(self, epoch: int, step: int, steps: int) -> None:
        """So many steps of this epoch (from 1) are done."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> bool | None:
        """An epoch (from 1) is over; True ends the training here."""

    def evaluating(self) -> None:
        """Training is over; evaluation, figures and tracking follow."""


@dataclass
class Clock:
    """Seconds spent in the named parts of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begun


def run(cfg: DictConfig, choices: Mapping[str, str], listener: Listener | None = None) -> Result:
    """Trains, evaluates and records what the config says.

    choices: the choice made in each config group, recorded beside the values. Raises a UserError before training where
    the config, the data or the store cannot be used, and leaves a failed or interrupted run recorded as such.
    """
    check(cfg)
    listener = listener or Listener()
    clock = Clock()
    with clock("data"):
        splits = load_data(cfg.dataset)
    listener.data(splits)
    with clock("tracking"):
        name = cfg.name or name_of(choices, cfg.seed)
        record = tracking.start(Tracking(**cfg.tracking), name, cfg.training.resume)
    with recording.ended(record):
        return recorded(record, cfg, choices, splits, listener, clock)


def recorded(
    record: Record, cfg: DictConfig, choices: Mapping[str, str], splits: Splits, listener: Listener, clock: Clock
) -> Result:
    """The part of a run that its record tells of: from the imports to the stored model."""
    listener.record(record)
    settings = Training(**cfg.training)
    with clock("imports"):
        import tensorflow  # noqa: F401
    with clock("tracking"):
        recording.start(record, cfg, choices, splits)
    with clock("building"):
        prepare_keras(cfg.seed, settings)
        model = build(cfg.model, image_shape=splits.image_shape, classes=len(splits.class_names))
        optimizer = build_optimizer(cfg.optimizer, settings.steps(len(splits.train)))
    listener.model(model, settings, partial(differences, cfg, choices))
    with clock("training"):
        history = train(model, splits, optimizer, settings, cfg.seed, record, listener)
    listener.evaluating()
    with clock("evaluation"):
        evaluations = evaluate(model, splits, history)
    metrics = {f"{split}/{key}": value for split, found in evaluations.items() for key, value in found.metrics.items()}
    with clock("artifacts"):
        from mnist_exp import artifacts

        artifacts.write(record.artifacts, model, splits, history, evaluations)
    with clock("tracking"):
        recording.finish(record, cfg, model, splits, history, metrics, clock.seconds)
    return Result(
        name=record.name,
        run_id=record.id,
        metrics=metrics,
        history=history.curves(),
        used_epoch=history.used_epoch,
        parameters=model.count_params(),
        class_names=splits.class_names,
        seconds=clock.seconds,
        trouble=record.trouble,
        uri=record.uri,
    )


def name_of(choices: Mapping[str, str], seed: int) -> str:
    """The name of a run that was given none."""
    chosen = choices.get("experiment") or f"{choices.get('model', 'model')}-{choices.get('optimizer', 'optimizer')}"
    return f"{chosen}-s{seed}"


def load_data(dataset: DictConfig) -> Splits:
    """Loads and splits what the section `dataset` names."""
    keys = dict(dataset)
    how = {key: keys.pop(key) for key in ("name", "validation", "method", "test", "limit", "seed")}
    return data.split(build(keys), **how)


def prepare_keras(seed: int, settings: Training) -> None:
    """Seeds Python, numpy and TensorFlow, and sets precision and determinism for all that is built from here on."""
    import keras
    from tensorflow.python.framework import config

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(settings.precision)
    switch = config.enable_op_determinism if settings.deterministic else config.disable_op_determinism
    switch()


def build_optimizer(section: DictConfig, steps: int) -> "keras.optimizers.Optimizer":
    """The optimizer, its learning rate scheduled over `steps` batches."""
    keys = dict(section)
    schedule = {key: keys.pop(key) for key in ("learning_rate", "schedule", "warmup")}
    return build(keys, optimizers.learning_rate_schedule(steps, **schedule))


def train(
    model: "keras.Model",
    splits: Splits,
    optimizer: "keras.optimizers.Optimizer",
    settings: Training,
    seed: int,
    record: Record,
    listener: Listener,
) -> History:
    """Fits the model, each epoch recorded."""
    begun = time.perf_counter()

    def on_epoch(epoch: int, metrics: dict[str, float]) -> bool | None:
        named = {recording.tracked_name(key): value for key, value in metrics.items()}
        record.metrics({**named, "wall_seconds/elapsed": time.perf_counter() - begun}, step=epoch)
        return listener.epoch(epoch, metrics)

    return training.fit(
        model,
        splits,
        optimizer,
        settings,
        seed=seed,
        folder=record.checkpoints,
        on_step=listener.step,
        on_epoch=on_epoch,
    )


def evaluate(model: "keras.Model", splits: Splits, history: History) -> dict[str, Evaluation]:
    """One pass over what is scored, validation and test, each checked against what Keras reports.

    Raises RuntimeError where the accuracies differ: the weights, the order or the counting would be wrong.
    """
    found = {}
    for name, part in splits.scored.items():
        probabilities, reported = predict(model, part.images, part.labels)
        found[name] = Evaluation(part.labels, probabilities, splits.class_names)
        _check_accuracy(name, found[name].accuracy, reported, len(part))
    watched = history.epochs[history.used_epoch - 1]["val_accuracy"]
    _check_accuracy("val", found["val"].accuracy, watched, len(splits.validation))
    return found


def predict(model: "keras.Model", images: "np.ndarray", labels: "np.ndarray") -> tuple["np.ndarray", float]:
    """Probabilities, float32 (n, classes), and the accuracy that Keras's own metric gives for them, in one pass."""
    import keras

    probabilities = model.predict(images, batch_size=training.EVALUATION_BATCH, verbose=0).astype("float32")
    reported = keras.metrics.SparseCategoricalAccuracy()
    reported.update_state(labels, probabilities)
    return probabilities, float(reported.result())


def _check_accuracy(name: str, ours: float, reported: float, n: int) -> None:
    if abs(ours - reported) * n >= 0.5:
        raise RuntimeError(f"{name}: the confusion matrix gives an accuracy of {ours}, but Keras reports {reported}")
