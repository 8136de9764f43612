"""One run: load the data, build the model, train, evaluate, record."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mnist_exp import tracking
from mnist_exp.config.check import check
from mnist_exp.config.compose import Composed, by_key, compose
from mnist_exp.config.resume import RESUME, START, check_single, resume_run, start_from, wanted_run
from mnist_exp.config.run_config import RunConfig, plain
from mnist_exp.config.schema import General, Tracking, Training
from mnist_exp.data.load import load_splits
from mnist_exp.data.splits import Splits
from mnist_exp.errors import ConfigError, Problem, TrackingError
from mnist_exp.evaluation import run_files
from mnist_exp.evaluation.figure_process import FigureProcess
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.log import log_line
from mnist_exp.tracking.active_run import ActiveRun, Timer
from mnist_exp.tracking.log_run import log_results, log_start
from mnist_exp.trainer import Listener, Trainer, format_metrics
from mnist_exp.training.evaluate import check_accuracy, evaluate
from mnist_exp.training.fit import prepare_keras
from mnist_exp.training.model_files import export

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a run.

    metrics: `val/` and `test/` metrics of the weights that were kept.
    evaluations: what they follow from, by the name of the split in metrics.
    history: one list per Keras metric, one value per epoch.
    used_epoch: the epoch, counted from 1, whose weights were kept.
    diverged: whether its training ended much worse than guessing.
    seconds: wall time of each part of the run.
    undelivered: a folder with the data that the store has not accepted, else None.
    refused: of these, the calls that the store refused, each with the reason.
    """

    name: str
    run_id: str | None
    metrics: Mapping[str, float]
    evaluations: Mapping[str, Evaluation]
    history: Mapping[str, list[float]]
    used_epoch: int
    diverged: bool
    parameters: int
    class_names: tuple[str, ...]
    seconds: Mapping[str, float]
    undelivered: str | None = None
    refused: tuple[str, ...] = ()
    uri: str | None = None

    def load_model(self) -> "keras.Model":
        """Returns the trained model from the tracking store. Raises TrackingError if the run was not tracked."""
        if self.run_id is None or self.uri is None:
            raise TrackingError(Problem("the model of a run", "is kept only if the run is tracked", "tracking=off"))
        from mnist_exp.tracking.registry import load_model

        return load_model(self.uri, self.run_id)


def configure(composed: Composed) -> RunConfig:
    """Returns the checked config of a run: as composed, or as recorded by the run named in training.resume.

    Raises ConfigError with every problem, TrackingError if the run to be resumed is unknown or cannot be resumed.
    """
    check_single(composed)
    if (begun := with_parent(composed)) is not composed:
        composed = compose(begun.overrides, composed.source)
    wanted = wanted_run(composed)
    if wanted is None:
        return check(composed)
    run_id, recorded, choices = tracking.read_resumable(_tracking_for(composed, RESUME), wanted)
    return resume_run(composed, recorded, choices, run_id)


def with_parent(composed: Composed) -> Composed:
    """Returns a command line with the net and the id of the run that training.start_from names, if it names one.

    Raises TrackingError if there is no such run, or if it did not finish.
    """
    wanted = wanted_run(composed, START)
    if wanted is None:
        return composed
    run_id, values, choices = tracking.read_parent(_tracking_for(composed, START), wanted)
    overrides = start_from(composed.overrides, run_id, values, choices)
    chosen = {key: text.partition("=")[2] for key, text in by_key(overrides).items() if key == "model"}
    return replace(composed, overrides=tuple(overrides), choices={**composed.choices, **chosen})


def _tracking_for(composed: Composed, key: str) -> Tracking:
    settings = Tracking(**plain(composed.config.tracking))
    if not settings.enabled:
        rule = "needs the tracking store that knows the run"
        raise ConfigError(Problem(key, rule, "tracking=off", "leave tracking=off out"))
    return settings


def run(config: RunConfig, listener: Listener | None = None, data: Any = None) -> Result:
    """Trains, evaluates and records one run.

    data: images and labels that take the place of the data set of the config, see `mnist_exp.run`.

    Raises a UserError before training if the data or the store cannot be used. If the run fails or is interrupted,
    the store shows it as FAILED or KILLED.
    """
    with exits_as_errors():
        return _run(config, listener or Listener(), data)


def _run(config: RunConfig, listener: Listener, data: Any) -> Result:
    timer = Timer()
    with timer("data"):
        splits = load_splits(config, data=data)
    resume = config.settings(Training).resume
    with FigureProcess(splits) as figures:
        listener.on_data(splits)
        with tracking.start_run(config.settings(Tracking), config.name, resume, timer) as active:
            try:
                result = train_and_evaluate(config, splits, active, listener, figures.begin)
            finally:
                with timer("artifacts"):
                    figures.finish()  # also if the model cannot be stored
    return replace(result, undelivered=active.undelivered, refused=active.refused)  # known when the run has ended


@contextmanager
def exits_as_errors() -> Iterator[None]:
    """Turns the SystemExit of a user's net or data set into an error, which fails the run or the trial."""
    try:
        yield
    except SystemExit as end:
        error = RuntimeError(f"the code of the run ended the process: SystemExit({end.code!r})")
        raise error.with_traceback(end.__traceback__) from None  # the last line is that of the user's code


def train_and_evaluate(
    config: RunConfig,
    splits: Splits,
    active: ActiveRun,
    listener: Listener,
    draw: run_files.Draw = run_files.draw_confusions,
) -> Result:
    """Trains and evaluates a run that exists in the store. A sweep's worker calls this for each trial.

    splits: has no test set in a trial, so that the trial cannot use it. draw: its figures.
    """
    with active.watch_system(config.settings(Tracking).system_metrics):
        return _train_and_evaluate(config, splits, active, listener, draw)


def _train_and_evaluate(
    config: RunConfig, splits: Splits, active: ActiveRun, listener: Listener, draw: run_files.Draw
) -> Result:
    listener.on_start(active)
    with active.timer("imports"):
        prepare_keras(config.seed, config.settings(Training))
        from mnist_exp.training.augmentation import show_changes
    with active.timer("tracking"):
        log_start(active, config, splits)
    trained, splits = Trainer(config, active, listener).train(splits)
    model, history = trained.model, trained.history
    listener.on_evaluation()
    with active.timer("evaluation"):
        evaluations = {"val": trained.validation}
        if splits.test:
            evaluations["test"] = evaluate(model, splits.test, splits.class_names)
        check_accuracy(history, evaluations)
    with active.timer("artifacts"):
        seen = show_changes(config, splits)
        results = run_files.RunResults.of(model, splits, history, evaluations, seen)
        run_files.write(active.artifacts, results, draw)
    with active.timer("tracking"):
        metrics = log_results(active, config, model, splits, history, evaluations)
        if name := config.settings(General).export:
            export(model, "h5", active.artifacts / name, list(splits.scored.values())[-1].images[:1000])
    log_line(f"epoch {history.used_epoch} was used: {format_metrics(metrics)}")
    return Result(
        name=active.name,
        run_id=active.id,
        metrics=metrics,
        evaluations=evaluations,
        history=history.curves(),
        used_epoch=history.used_epoch,
        diverged=evaluations["val"].has_diverged(history.used["loss"]),
        parameters=model.count_params(),
        class_names=splits.class_names,
        seconds=active.seconds,
        uri=active.uri,
    )
