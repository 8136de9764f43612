"""Ranks the trials of a sweep, and scores the best one's saved model on the test set, once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mnist_exp.config.objective import Objective
from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.load import load_splits
from mnist_exp.errors import Problem, TrackingError
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.sweep.study import Study
from mnist_exp.tracking import tags
from mnist_exp.tracking.registry import load_model
from mnist_exp.tracking.stored_run import TrialRun
from mnist_exp.tracking.sweep_run import SweepRun
from mnist_exp.training import fit


@dataclass(frozen=True)
class Winner:
    """The best trial. test: its metrics on the test set. config: an experiment file that trains it again."""

    trial: TrialRun
    test: Mapping[str, float]
    config: str


def rank(trials: Iterable[TrialRun], objective: Objective) -> list[TrialRun]:
    """Returns the trials with a score, the best first; of equal ones the first trial."""
    scored = [trial for trial in trials if trial.has_score]
    return sorted(scored, key=lambda trial: (objective.rank(trial.score or 0.0), trial.number))


def score_winner(study: Study, record: SweepRun, best: TrialRun) -> Winner:
    """Scores the best trial on the test set, unless that was done, and records it with the sweep."""
    config = study.configs.of(best.values)
    comment = f"Trial {best.number} of the sweep {study.name}: {study.objective.metric} {best.score:.4f}."
    file = config.experiment_file(comment)
    model_run = best.model_run_id
    parent = record.fetch()
    if parent.tags.get(tags.TESTED) == model_run:
        test = {key: value for key, value in parent.metrics.items() if key.startswith("test/")}
        return Winner(best, test, file)
    splits = load_splits(config)
    model = load_model(record.store.uri, model_run)

    def evaluate(part: ImageSet) -> Evaluation:
        return fit.evaluate(model, part, splits.class_names)

    validation = evaluate(splits.validation).accuracy
    before = best.metrics["val/accuracy"]
    if study.settings.executions == 1 and abs(validation - before) * len(splits.validation) >= 0.5:
        rule = f"must have the validation accuracy of its training, {before:.4f}, because its files must not change"
        raise TrackingError(Problem(f"the stored model of trial {best.number}", rule, round(validation, 4)))
    assert splits.test is not None
    test = {f"test/{key}": value for key, value in evaluate(splits.test).metrics.items()}
    record.log(test, facts={tags.TESTED: model_run, tags.BEST_TRIAL: str(best.number), tags.BEST_RUN: best.run_id})
    return Winner(best, test, file)


def save(winner: Winner, path: str) -> None:
    """Writes the winner's config to a file. Raises TrackingError if it cannot be written."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(winner.config, encoding="utf-8")
    except OSError as error:
        remedy = f"{error}; the sweep keeps the config as best.yaml"
        raise TrackingError(Problem("sweep.save_best", "must be a file that can be written", path, remedy)) from error
