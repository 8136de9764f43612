"""The files a run keeps: reports, figures, predictions, history, and the page that describes it."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mnist_exp.data.splits import Splits
from mnist_exp.evaluation import figures
from mnist_exp.evaluation.architecture import architecture
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.evaluation.plots import save
from mnist_exp.evaluation.predictions import write_predictions

if TYPE_CHECKING:
    import keras

SPLITS = {"val": "validation", "test": "test"}  # as metrics name them, and in words


def write(
    folder: Path,
    model: "keras.Model",
    splits: Splits,
    history: History,
    evaluations: Mapping[str, Evaluation],
) -> None:
    """Writes all of them below `folder`; evaluations: of what was scored, the one to show last."""
    (folder / "model_summary.txt").write_text(summary(model), encoding="utf-8")
    (folder / "history.json").write_text(json.dumps({"used_epoch": history.used_epoch, **history.curves()}, indent=1))
    write_reports(folder / "reports", evaluations)
    write_predictions(folder / "predictions.npz", splits, evaluations)
    write_figures(folder / "figures", model, splits, history, evaluations)


def summary(model: "keras.Model") -> str:
    """Keras's summary of the layers as text."""
    lines = io.StringIO()
    model.summary(line_length=100, print_fn=lambda line: lines.write(line + "\n"))
    return lines.getvalue()


def write_reports(folder: Path, evaluations: Mapping[str, Evaluation]) -> None:
    """Classification reports of each split, as text and JSON."""
    folder.mkdir(exist_ok=True)
    for name, evaluation in evaluations.items():
        (folder / f"{name}.txt").write_text(evaluation.report(), encoding="utf-8")
        (folder / f"{name}.json").write_text(json.dumps(evaluation.report_json(), indent=1))


def write_figures(
    folder: Path, model: "keras.Model", splits: Splits, history: History, evaluations: Mapping[str, Evaluation]
) -> None:
    """Every figure as PNG; those of single images show the split that was evaluated last."""
    folder.mkdir(exist_ok=True)
    last = list(evaluations)[-1]
    shown, images = evaluations[last], splits.scored[last].images
    drawn = {
        "samples": figures.samples(splits),
        "learning_curves": figures.learning_curves(history),
        **{
            f"confusion_{SPLITS[name]}": figures.confusion_matrix(evaluation, SPLITS[name].capitalize())
            for name, evaluation in evaluations.items()
        },
        "predictions": figures.predictions(images, shown, SPLITS[last]),
        "confident_mistakes": figures.confident_mistakes(images, shown, SPLITS[last]),
        "per_class": figures.per_class(shown),
        "architecture": architecture(model),
    }
    for name, figure in drawn.items():
        save(figure, folder / f"{name}.png")


def model_metadata(splits: Splits) -> dict[str, Any]:
    """What a model must be kept with to be used: class names in order, and what its input is."""
    height, width, channels = splits.image_shape
    return {
        "class_names": list(splits.class_names),
        "input": {"height": height, "width": width, "channels": channels, "dtype": "uint8", "range": [0, 255]},
        "dataset": {"name": splits.name, "digest": splits.digest},
        "preparation": splits.preparation,
    }


def description(
    cfg: DictConfig, model: "keras.Model", splits: Splits, history: History, metrics: Mapping[str, float]
) -> str:
    """The run's page in markdown: result first, then data, net and training."""
    rows = [
        f"| {SPLITS[split]} | {metrics[f'{split}/accuracy']:.2%} | {metrics[f'{split}/accuracy_low']:.2%} - "
        f"{metrics[f'{split}/accuracy_high']:.2%} | {metrics[f'{split}/macro_f1']:.4f} | "
        f"{metrics[f'{split}/loss']:.4f} |"
        for split in splits.scored
    ]
    sizes = ", ".join(f"{len(part):,} {split}" for split, part in splits.parts.items())
    epochs = len(history.epochs)
    return "\n".join(
        [
            "| | accuracy | 95% interval | macro F1 | loss |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"**Data** {splits.description}: {sizes}; {splits.image_shape[0]}x{splits.image_shape[1]} pixels.",
            "",
            f"**Net** {cfg.model._target_.rpartition('.')[2]}, {model.count_params():,} parameters.",
            "",
            f"**Training** {cfg.optimizer._target_.rpartition('.')[2]}, learning rate {cfg.optimizer.learning_rate:g} "
            f"({cfg.optimizer.schedule}), batch {cfg.training.batch_size}, {epochs} epochs, weights of epoch "
            f"{history.used_epoch}, seed {cfg.seed}.",
            "",
            "Figures, reports, predictions and the exact config lie under *Artifacts*; "
            f"the test set was {'scored once, after training' if splits.test else 'not looked at'}.",
        ]
    )
