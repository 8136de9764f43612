"""What a run tells its record: surroundings and config at the start, results and model at the end, and how it ended."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from mnist_exp.config.compose import OF_SWEEPS
from mnist_exp.config.run_config import flatten
from mnist_exp.data.splits import Splits
from mnist_exp.errors import DataError, TrainingError
from mnist_exp.evaluation.history import History
from mnist_exp.tracking.active_run import Input, Record

if TYPE_CHECKING:
    import keras


@contextmanager
def ended(record: Record) -> Iterator[None]:
    """Ends the record as FINISHED, FAILED or KILLED, by how the block is left."""
    try:
        yield
    except Exception as error:
        (record.artifacts / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        record.end("FAILED", f"{type(error).__name__}: {error}")
        raise
    except BaseException as stopped:
        record.end("KILLED", type(stopped).__name__)
        raise
    record.end("FINISHED")


def start(record: Record, cfg: DictConfig, choices: Mapping[str, str], splits: Splits) -> None:
    """Records config, data and surroundings before the training; a resumed run has its config already.

    Raises DataError where a run to resume was trained on other data.
    """
    from mnist_exp.tracking import environment

    if record.digest not in (None, splits.digest):
        raise DataError(
            f"a resumed run needs the data it began with, digest {record.digest}, but got {splits.digest}; "
            "put that data back, or start a new run"
        )
    record.tags(environment.tags(record.artifacts))
    values = OmegaConf.to_container(OmegaConf.merge(cfg, {"training": {"resume": None}}), resolve=True)
    assert isinstance(values, dict)
    values = {key: value for key, value in values.items() if key not in OF_SWEEPS}
    (record.artifacts / "config.yaml").write_text(OmegaConf.to_yaml(values), encoding="utf-8")
    if cfg.training.resume is None:
        digests = {"dataset.digest": splits.digest, "dataset.validation_digest": splits.validation_digest}
        record.params({**choices, **dict(flatten(values)), **digests})
        sizes = {name: len(part) for name, part in splits.parts.items()}
        record.input(Input(splits.name, splits.digest, splits.description, {**sizes, **splits.repeated}))
    record.publish()


def finish(
    record: Record,
    cfg: DictConfig,
    model: "keras.Model",
    splits: Splits,
    history: History,
    metrics: Mapping[str, float],
    seconds: Mapping[str, float],
) -> None:
    """Records results and model, and checks that the model as stored answers like the one trained."""
    import numpy as np

    from mnist_exp.evaluation import run_files as artifacts
    from mnist_exp.training.model_files import export

    last, recorded = len(history.epochs), history.epochs[-1]
    validation = {key: value for key, value in metrics.items() if key.startswith("val/")}
    if history.used_epoch == last:  # what the last epoch recorded is not said twice
        said = {key for key in validation if abs(validation[key] - recorded.get(key.replace("/", "_"), inf)) < 1e-5}
        record.metrics({key: validation[key] for key in validation if key not in said}, step=last)
    else:  # restored weights get a step of their own, so that the newest value is that of the weights used
        record.metrics(validation, step=last + 1)
    if tested := {key: value for key, value in metrics.items() if key.startswith("test/")}:
        record.metrics(tested, step=0)
    record.metrics({f"wall_seconds/{part}": value for part, value in seconds.items()}, step=0)
    record.tags({"mlflow.note.content": artifacts.describe_run(cfg, model, splits, history, metrics)})
    stored = record.model(model, artifacts.model_metadata(splits))
    images = list(splits.scored.values())[-1].images
    few = images[:256]
    difference = float(np.abs(stored(few, training=False) - model(few, training=False)).max())
    if not difference <= 1e-6:
        raise TrainingError(
            f"the stored model must answer like the trained one, but probabilities differ by {difference}"
        )
    if cfg.export:
        export(model, "h5", record.artifacts / cfg.export, images[:1000])
    facts = {"used_epoch": history.used_epoch, "parameters": model.count_params(), "compiled_epoch": history.mode}
    record.tags({name: str(value) for name, value in facts.items()})
    record.publish()


def tracked_name(key: str) -> str:
    """Keras's name of a metric as the store has it: val_loss is val/loss, loss is train/loss."""
    if key == "learning_rate":
        return key
    return f"val/{key.removeprefix('val_')}" if key.startswith("val_") else f"train/{key}"
