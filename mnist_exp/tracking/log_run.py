"""Logs a run: config, data set and environment at the start; metrics, model and facts at the end."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_exp.config.compose import flatten
from mnist_exp.config.own_code import digest_own_code, frozen_part
from mnist_exp.config.run_config import RunConfig
from mnist_exp.config.schema import Training
from mnist_exp.data.splits import Splits
from mnist_exp.errors import DataError, Problem, TrainingError
from mnist_exp.evaluation.history import History
from mnist_exp.tracking import tags
from mnist_exp.tracking.active_run import ActiveRun, Input

if TYPE_CHECKING:
    import keras

    from mnist_exp.evaluation.metrics import Evaluation

CLOSE = 1e-6  # the largest difference of a probability between the trained and the stored model
COMPARED = 8  # images


def log_start(active: ActiveRun, config: RunConfig, splits: Splits) -> None:
    """Logs config, data set and environment. A resumed run has its config and data set already.

    Raises DataError if a resumed run was trained on other data.
    """
    from mnist_exp.tracking.environment import collect_tags

    if active.digest not in (None, splits.digest):
        rule, remedy = f"must be that of the resumed run, {active.digest}", "put that data back, or start a new run"
        raise DataError(Problem("dataset.digest", rule, splits.digest, remedy))
    own_code = digest_own_code(config.values)
    facts = {tags.CONFIG_HASH: config.with_values({"training.resume": None}).hash}
    active.log_tags(facts | collect_tags(active.artifacts) | ({tags.OWN_CODE: own_code} if own_code else {}))
    (active.artifacts / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    (active.artifacts / "data.json").write_text(json.dumps(describe(splits), indent=1), encoding="utf-8")
    if config.settings(Training).resume is None:
        digests = {"dataset.digest": splits.digest, "dataset.validation_digest": splits.validation_digest}
        active.log_params({**config.choices, **dict(flatten(config.recorded)), **digests})
        sizes = {name: len(part) for name, part in splits.parts.items()}
        active.log_input(Input(splits.name, splits.digest, splits.description, {**sizes, **splits.repeated}))
    active.log_artifacts()


def describe(splits: Splits) -> dict[str, Any]:
    """Returns what a run records of its data: their sizes by split and class, and what was done to them."""
    counts = {
        split: dict(
            zip(splits.class_names, np.bincount(part.labels, minlength=len(splits.class_names)).tolist(), strict=True)
        )
        for split, part in splits.parts.items()
    }
    groups = splits.train.groups
    return {
        "name": splits.name,
        "description": splits.description,
        "digest": splits.digest,
        "image_shape": splits.image_shape,
        "images": counts,
        "identical": splits.repeated,
        "groups_in_training": None if groups is None else len(np.unique(groups)),
        "notes": splits.notes,
    }


def log_epoch(active: ActiveRun, epoch: int, metrics: Mapping[str, float], prefix: str = "") -> None:
    """Logs what Keras reports of an epoch, counted from 1, and the seconds since the training began.

    prefix: of the names, for the training of one fold.
    """
    named = {metric_name(key): value for key, value in metrics.items()} | {
        "wall_seconds/elapsed": active.timer.elapsed("training")
    }
    active.log_metrics({f"{prefix}{name}": value for name, value in named.items()}, step=epoch)


def log_results(
    active: ActiveRun,
    config: RunConfig,
    model: "keras.Model",
    splits: Splits,
    history: History,
    evaluations: Mapping[str, "Evaluation"],
) -> dict[str, float]:
    """Logs metrics, model and facts, and returns the metrics by name, such as `test/accuracy`.

    Raises TrainingError if the model cannot be stored, or does not answer as the trained one does.
    """
    from mnist_exp.evaluation import run_files

    metrics = {f"{split}/{key}": value for split, one in evaluations.items() for key, value in one.metrics.items()}
    if history.is_of_epoch:
        reported = {metric_name(key): value for key, value in history.used.items()}
        metrics |= {name: reported[name] for name in ("val/loss", "val/cross_entropy") if name in reported}
    has_diverged = evaluations["val"].has_diverged(history.used["loss"])
    _log_metrics(active, history, metrics)
    active.log_metrics({f"wall_seconds/{part}": value for part, value in active.seconds.items()}, step=0)
    active.log_tags({tags.NOTE: run_files.describe_run(config.values, model, splits, history, metrics, has_diverged)})
    size = model.count_params()
    facts = {tags.USED_EPOCH: history.used_epoch, tags.PARAMETERS: size, tags.COMPILED_EPOCH: history.mode}
    facts[tags.LOGGED_IMAGES] = "true"
    if has_diverged:
        facts[tags.DIVERGED] = "true"
    active.log_tags({name: str(value) for name, value in facts.items()})
    active.log_artifacts()
    stored = _log_model(active, model, run_files.model_metadata(splits))  # last, because the net's own code may fail
    difference = _compare(stored, model, list(splits.scored.values())[-1].images[:COMPARED])
    if not difference <= CLOSE:
        rule = f"must answer as the trained one does, probabilities within {CLOSE}"
        raise TrainingError(Problem("the stored model", rule, difference))
    return metrics


def _log_model(active: ActiveRun, model: "keras.Model", metadata: Mapping[str, Any]) -> "keras.Model":
    """Stores the model. Raises TrainingError if it cannot be saved or loaded, whatever its own code raises."""
    try:
        return active.log_model(model, metadata)
    except Exception as error:
        rule = f"cannot be stored: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        remedy = "the run keeps its metrics, figures and predictions"
        raise TrainingError(Problem("the trained model", rule, remedy=remedy)) from error


def _compare(stored: "keras.Model", model: "keras.Model", images: np.ndarray) -> float:
    """Returns the largest difference of a probability between two nets.

    If both share a frozen part between the images and a head, it is the heads that answer, for any features.
    """
    nets, given = [stored, model], images
    if len(model.layers) == 3 and (frozen := frozen_part(model)) is model.layers[1]:
        nets = [stored.layers[2], model.layers[2]]
        given = np.random.default_rng(0).standard_normal((len(images), *frozen.output_shape[1:]), np.float32)
    one, other = (net(given, training=False) for net in nets)
    return float(np.abs(one - other).max())


def _log_metrics(active: ActiveRun, history: History, metrics: Mapping[str, float]) -> None:
    last = len(history.epochs)
    validation = {key: value for key, value in metrics.items() if key.startswith("val/")}
    if history.used_epoch == last and history.is_of_epoch:
        logged = set(map(metric_name, history.used))  # by the last epoch
        active.log_metrics({key: value for key, value in validation.items() if key not in logged}, step=last)
    else:  # restored weights get a step of their own, so that the newest value is that of the weights used
        active.log_metrics(validation, step=last + 1)
    if test := {key: value for key, value in metrics.items() if key.startswith("test/")}:
        active.log_metrics(test, step=0)


def metric_name(key: str) -> str:
    """Returns the name in the store of a metric of Keras: val/loss for val_loss, train/loss for loss."""
    if key == "learning_rate":
        return key
    return f"val/{key.removeprefix('val_')}" if key.startswith("val_") else f"train/{key}"
