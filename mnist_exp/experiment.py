"""The story of one run: data, model, training, evaluation, record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from mnist_exp import tracking
from mnist_exp.config.check import check
from mnist_exp.config.run_config import build, differences
from mnist_exp.config.schema import Tracking, Training
from mnist_exp.data.load import load_data
from mnist_exp.data.splits import Splits
from mnist_exp.errors import Problem, TrackingError
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.optimizers import build_optimizer
from mnist_exp.tracking import ActiveRun, Timer
from mnist_exp.tracking.log_run import log_epoch, log_results, log_start
from mnist_exp.training import fit as training
from mnist_exp.training.fit import predict, prepare_keras

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Result:
    """What a run returns: plain values, and where its model is.

    metrics: val/ and test/ numbers of the weights used; history: one list an epoch of each of Keras's metrics; seconds:
    wall time of each part of the run; undelivered: the folder that keeps what the store has not accepted.
    """

    name: str
    run_id: str | None
    metrics: dict[str, float]
    history: dict[str, list[float]]
    used_epoch: int
    parameters: int
    class_names: tuple[str, ...]
    seconds: dict[str, float]
    undelivered: str | None = None
    uri: str | None = None

    def load_model(self) -> "keras.Model":
        """The trained model, from the tracking store. Raises TrackingError where the run kept none."""
        if self.run_id is None:
            raise TrackingError(Problem("the model of a run", "is kept only if the run is tracked", "tracking=off"))
        return tracking.load_model(self.uri, self.run_id)


class Listener:
    """Hears how a run goes; this one keeps silent."""

    def data(self, splits: Splits) -> None:
        """The data set is loaded and split."""

    def record(self, active: ActiveRun) -> None:
        """The run's folder is there."""

    def model(self, model: "keras.Model", settings: Training, differing: Callable[[], list[str]]) -> None:
        """Training is about to begin; differing() tells what sets the config apart from the defaults."""

    def step(self, epoch: int, step: int, steps: int) -> None:
        """So many steps of this epoch (from 1) are done."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> bool | None:
        """An epoch (from 1) is over; True ends the training here."""

    def evaluating(self) -> None:
        """Training is over; evaluation, figures and tracking follow."""


def run(cfg: DictConfig, choices: Mapping[str, str], listener: Listener | None = None) -> Result:
    """Trains, evaluates and records what the config says.

    choices: the choice made in each config group, recorded beside the values. Raises a UserError before training where
    the config, the data or the store cannot be used, and leaves a failed or interrupted run recorded as such.
    """
    check(cfg)
    listener = listener or Listener()
    timer = Timer()
    with timer("data"):
        splits = load_data(cfg.dataset)
    listener.data(splits)
    name = cfg.name or name_of(choices, cfg.seed)
    with tracking.start_run(Tracking(**cfg.tracking), name, cfg.training.resume, timer) as active:
        return recorded(active, cfg, choices, splits, listener)


def recorded(
    active: ActiveRun, cfg: DictConfig, choices: Mapping[str, str], splits: Splits, listener: Listener
) -> Result:
    """The part of a run that its record tells of: from the imports to the stored model."""
    timer = active.timer
    listener.record(active)
    settings = Training(**cfg.training)
    with timer("imports"):
        import tensorflow  # noqa: F401
    with timer("tracking"):
        log_start(active, cfg, choices, splits)
    with timer("building"):
        prepare_keras(cfg.seed, settings)
        model = build(cfg.model, image_shape=splits.image_shape, classes=len(splits.class_names))
        optimizer = build_optimizer(cfg.optimizer, settings.steps(len(splits.train)))
    listener.model(model, settings, partial(differences, cfg, choices))
    with timer("training"):
        history = train(model, splits, optimizer, settings, cfg.seed, active, listener)
    listener.evaluating()
    with timer("evaluation"):
        evaluations = evaluate(model, splits, history)
    with timer("artifacts"):
        from mnist_exp.evaluation import run_files as artifacts

        artifacts.write(active.artifacts, model, splits, history, evaluations)
    with timer("tracking"):
        metrics = log_results(active, cfg, model, splits, history, evaluations)
        if cfg.export:
            from mnist_exp.training.model_files import write_h5

            write_h5(active.artifacts / cfg.export, model, list(splits.scored.values())[-1].images[:1000])
    return Result(
        name=active.name,
        run_id=active.id,
        metrics=metrics,
        history=history.curves(),
        used_epoch=history.used_epoch,
        parameters=model.count_params(),
        class_names=splits.class_names,
        seconds=timer.seconds,
        undelivered=active.undelivered,
        uri=active.uri,
    )


def name_of(choices: Mapping[str, str], seed: int) -> str:
    """The name of a run that was given none."""
    chosen = choices.get("experiment") or f"{choices.get('model', 'model')}-{choices.get('optimizer', 'optimizer')}"
    return f"{chosen}-s{seed}"


def train(
    model: "keras.Model",
    splits: Splits,
    optimizer: "keras.optimizers.Optimizer",
    settings: Training,
    seed: int,
    active: ActiveRun,
    listener: Listener,
) -> History:
    """Fits the model, each epoch recorded."""

    def on_epoch(epoch: int, metrics: dict[str, float]) -> bool | None:
        log_epoch(active, epoch, metrics)
        return listener.epoch(epoch, metrics)

    return training.fit(
        model,
        splits,
        optimizer,
        settings,
        seed=seed,
        folder=active.checkpoints,
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


def _check_accuracy(name: str, ours: float, reported: float, n: int) -> None:
    if abs(ours - reported) * n >= 0.5:
        raise RuntimeError(f"{name}: the confusion matrix gives an accuracy of {ours}, but Keras reports {reported}")
