"""The end of a sweep: its best trial, restored from its saved model and scored on the test set, once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_exp import experiment, tracking
from mnist_exp.config.run_config import differences
from mnist_exp.errors import TrackingError
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.sweep.space import read
from mnist_exp.sweep.study import Study
from mnist_exp.tracking import tags
from mnist_exp.tracking.stored_run import TrialRun
from mnist_exp.tracking.sweep_run import SweepRun


@dataclass(frozen=True)
class Winner:
    """The best trial; test: its metrics on the test set, and the config that trains it again."""

    attempt: TrialRun
    test: Mapping[str, float]
    config: str


def crown(study: Study, record: SweepRun, best: TrialRun) -> Winner:
    """Scores the best trial on the test set, unless that was done, and records it with the sweep."""
    cfg, choices = study.configs.of(best.values)
    config = runnable(study, cfg, choices, best)
    model_run, stored = best.model_run_id, record.fetch()
    if stored.tags.get(tags.TESTED) == model_run:
        return Winner(best, {key: stored.metrics[key] for key in stored.metrics if key.startswith("test/")}, config)
    splits = experiment.load_data(cfg.dataset)
    model = tracking.load_model(record.store.uri, model_run)
    probabilities, reported = experiment.predict(model, splits.validation.images, splits.validation.labels)
    recorded = best.metrics["val/accuracy"]
    if study.settings.executions == 1 and abs(reported - recorded) * len(splits.validation) >= 0.5:
        raise TrackingError(
            f"the model of trial {best.number} must answer as when it was trained, {recorded:.4f} of validation "
            f"right, but got {reported:.4f}; its files were changed"
        )
    assert splits.test is not None
    probabilities, _ = experiment.predict(model, splits.test.images, splits.test.labels)
    found = Evaluation(splits.test.labels, probabilities, splits.class_names).metrics
    test = {f"test/{key}": value for key, value in found.items()}
    record.log(test, facts={tags.TESTED: model_run, tags.BEST_TRIAL: str(best.number), tags.BEST_RUN: best.run_id})
    return Winner(best, test, config)


def runnable(study: Study, cfg: DictConfig, choices: Mapping[str, str], best: TrialRun) -> str:
    """An experiment file that trains this trial again."""
    groups = {group: choice for group, choice in choices.items() if group not in ("experiment", "sweeps")}
    differing = [said.partition("=") for said in differences(cfg, groups)]
    values = OmegaConf.create()
    for key, _, token in differing:
        if key not in groups and key.split(".")[0] not in ("name", "tracking"):
            OmegaConf.update(values, key, read(token))
    chosen = [f"override /{key}: {token}" for key, _, token in differing if key in groups and key != "tracking"]
    head = [
        "# @package _global_",
        f"# Trial {best.number} of the sweep {study.name}: {study.settings.objective} {best.score:.4f}.",
    ]
    plain: dict[str, Any] = {"defaults": [dict([line.split(": ")]) for line in chosen]} if chosen else {}
    body = OmegaConf.to_yaml(OmegaConf.merge(plain, values)) if chosen or len(values) else "{}\n"
    return "\n".join([*head, body])


def save(winner: Winner, path: str) -> None:
    """Writes the winner's config to a file. Raises TrackingError where it cannot be written."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(winner.config, encoding="utf-8")
    except OSError as error:
        raise TrackingError(
            f"sweep.save_best={path} cannot be written ({error}); the sweep keeps it as best.yaml"
        ) from error
