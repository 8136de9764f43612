"""Ranks the trials of a sweep, and scores the best one's saved model on the test set, once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mnist_exp import experiment, tracking
from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import find_changes
from mnist_exp.errors import Problem, TrackingError
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.sweep.study import Study
from mnist_exp.tracking.sweep_run import Attempt, SweepRecord, scored

TESTED = "tested"  # the tag that says which run was scored on the test set


@dataclass(frozen=True)
class Winner:
    """The best trial. test: its metrics on the test set. config: an experiment file that trains it again."""

    trial: Attempt
    test: Mapping[str, float]
    config: str


def rank(trials: Iterable[Attempt], objective: Objective) -> list[Attempt]:
    """Returns the trials with a score, the best first; of equal ones the first trial."""
    return sorted(scored(trials), key=lambda trial: (objective.rank(trial.score or 0.0), trial.number))


def score_winner(study: Study, record: SweepRecord, best: Attempt) -> Winner:
    """Scores the best trial on the test set, unless that was done, and records it with the sweep."""
    cfg, choices = study.configs.of(best.values)
    config = experiment_file(study, cfg, choices, best)
    model_run = best.tags.get("model_run", best.run_id)
    if record.tag(TESTED) == model_run:
        return Winner(best, record.metrics("test/"), config)
    splits = experiment.load_splits(cfg.dataset)
    model = tracking.load_model(record.store.uri, model_run)
    probabilities = experiment.predict(model, splits.validation.images)
    reported = Evaluation(splits.validation.labels, probabilities, splits.class_names).accuracy
    recorded = best.metrics["val/accuracy"]
    if study.settings.executions == 1 and abs(reported - recorded) * len(splits.validation) >= 0.5:
        raise TrackingError(
            f"the model of trial {best.number} must answer as when it was trained, {recorded:.4f} of validation "
            f"right, but got {reported:.4f}; its files were changed"
        )
    assert splits.test is not None
    probabilities = experiment.predict(model, splits.test.images)
    found = Evaluation(splits.test.labels, probabilities, splits.class_names).metrics
    test = {f"test/{key}": value for key, value in found.items()}
    record.log(test, tags={TESTED: model_run, "best_trial": str(best.number), "best_run": best.run_id})
    return Winner(best, test, config)


def experiment_file(study: Study, cfg: DictConfig, choices: Mapping[str, str], best: Attempt) -> str:
    """Returns an experiment file that trains this trial again."""
    groups = {group: choice for group, choice in choices.items() if group not in ("experiment", "sweeps")}
    changed_choices, changed_values = find_changes(cfg, groups)
    values = OmegaConf.create()
    for key, value in changed_values.items():
        if key.split(".")[0] not in ("name", "tracking"):
            OmegaConf.update(values, key, value)
    defaults = [{f"override /{group}": choice} for group, choice in changed_choices.items() if group != "tracking"]
    body = OmegaConf.merge({"defaults": defaults} if defaults else {}, values)
    return (
        "# @package _global_\n"
        f"# Trial {best.number} of the sweep {study.name}: {study.objective.metric} {best.score:.4f}.\n"
        + OmegaConf.to_yaml(body)
    )


def save(winner: Winner, path: str) -> None:
    """Writes the winner's config to a file. Raises TrackingError if it cannot be written."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(winner.config, encoding="utf-8")
    except OSError as error:
        remedy = f"{error}; the sweep keeps the config as best.yaml"
        raise TrackingError(Problem("sweep.save_best", "must be a file that can be written", path, remedy)) from error
