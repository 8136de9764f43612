"""The list of the files that a run keeps, and the texts that describe a run and its model."""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mnist_exp.data.splits import Splits
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import SPLITS, Evaluation, table_of_scores
from mnist_exp.evaluation.network import Network
from mnist_exp.evaluation.predictions import write_predictions

if TYPE_CHECKING:
    import keras

CONFUSION = "figures/confusion_{words}.png"


@dataclass(frozen=True)
class RunResults:
    """What the files of a run are made from.

    evaluations: by the name of the split in metrics; the last is shown. augmented: some training images as the net saw
    them in its first steps, uint8 (steps, n, height, width, channels); None if nothing changed them.
    """

    summary: str
    network: Network
    splits: Splits
    history: History
    evaluations: Mapping[str, Evaluation]
    augmented: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        model: "keras.Model",
        splits: Splits,
        history: History,
        evaluations: Mapping[str, Evaluation],
        augmented: np.ndarray | None = None,
    ) -> Self:
        """Returns the results of a model."""
        return cls(summarize(model), Network.of(model), splits, history, evaluations, augmented)

    @property
    def shown(self) -> tuple[np.ndarray, Evaluation, str]:
        """Images, evaluation and name of the split whose single images are shown."""
        name = list(self.evaluations)[-1]
        return self.splits.scored[name].images, self.evaluations[name], SPLITS[name]


GRID, GRID_KEY = "images", "confusion_matrix"  # where MLflow's pages look for pictures, and its name there
THUMBNAIL = 320  # pixels

Draw = Callable[[Path, RunResults], None]

# The texts of a run below its artifacts; `figures` lists its figures. To add a file, add a line.
FILES: dict[str, Callable[[RunResults], str]] = {
    "model_summary.txt": lambda run: run.summary,
    "history.json": lambda run: _to_json({"used_epoch": run.history.used_epoch, **run.history.curves()}),
}

# The same for each split that was evaluated.
FILES_OF_SPLIT: dict[str, Callable[[Evaluation], str]] = {
    "reports/{name}.txt": lambda evaluation: evaluation.report(),
    "reports/{name}.json": lambda evaluation: _to_json(evaluation.report_json()),
}


def write(folder: Path, run: RunResults, draw: Draw) -> None:
    """Writes every file of the run below `folder`. draw: draws its figures, or begins to."""
    write_predictions(folder / "predictions.npz", run.splits, run.evaluations)
    texts = {path: make(run) for path, make in FILES.items()}
    for name, evaluation in run.evaluations.items():
        texts |= {path.format(name=name): make(evaluation) for path, make in FILES_OF_SPLIT.items()}
    for path, text in texts.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    write_grid_image(folder, run)
    draw(folder, run)


def write_grid_image(folder: Path, run: RunResults) -> None:
    """Writes the confusion matrix of the validation images as MLflow's pages show pictures of several runs in a grid.

    The name of the file says what it shows, at which step and when. The pages show the pictures of one step, so that
    all runs have the same one.
    """
    from mnist_exp.evaluation.matrix_image import confusion_image

    evaluation = run.evaluations["val"]
    picture = confusion_image(evaluation, f"Validation, {len(evaluation.labels):,} images")
    moment = f"step+0+timestamp+{round(time.time() * 1000)}+{uuid.uuid4()}"
    path = folder / GRID / f"{GRID_KEY}+{moment}"
    path.parent.mkdir(exist_ok=True)
    picture.save(f"{path}.png")
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(f"{path}+compressed.webp")


def draw_confusions(folder: Path, run: RunResults) -> None:
    """Draws confusion matrices alone, in little time."""
    from mnist_exp.evaluation.matrix_image import confusion_image

    for name, evaluation in run.evaluations.items():
        path = folder / CONFUSION.format(words=SPLITS[name])
        path.parent.mkdir(exist_ok=True)
        confusion_image(evaluation, f"{SPLITS[name].capitalize()}, {len(evaluation.labels):,} images").save(path)


def _to_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1)


def summarize(model: "keras.Model") -> str:
    """Returns Keras's summary of the layers as text."""
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lines.append)
    return "\n".join([*lines, ""])


def model_metadata(splits: Splits) -> dict[str, Any]:
    """Metadata stored with a model: class names in order, shape and range of the input, data set, preparation."""
    height, width, channels = splits.image_shape
    return {
        "class_names": list(splits.class_names),
        "input": {"height": height, "width": width, "channels": channels, "dtype": "uint8", "range": [0, 255]},
        "dataset": {"name": splits.name, "digest": splits.digest},
        "preparation": splits.preparation,
    }


def describe_run(
    config: Mapping[str, Any],
    model: "keras.Model",
    splits: Splits,
    history: History,
    metrics: Mapping[str, float],
    has_diverged: bool,
) -> str:
    """Returns the page of a run in markdown: its metrics, then data, network and training."""
    header, scores = table_of_scores(metrics, list(splits.scored))
    rows = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *scores)]
    sizes = ", ".join(f"{len(part):,} {split}" for split, part in splits.parts.items())
    height, width, _ = splits.image_shape
    net, optimizer = (config[section]["_target_"].rpartition(".")[2] for section in ("model", "optimizer"))
    paragraphs = [
        "\n".join(rows),
        f"**Data** {splits.description}: {sizes}; {height}x{width} pixels."
        + "".join(f" {note}." for note in splits.notes),
        f"**Net** {net}, {model.count_params():,} parameters.",
        f"**Training** {optimizer}, learning rate {config['optimizer']['learning_rate']:g} "
        f"({config['optimizer']['schedule']}), batch {config['training']['batch_size']}, {len(history.epochs)} epochs, "
        f"weights of epoch {history.used_epoch}, seed {config['seed']}.",
        *([f"**Begun** with the weights of run {parent}."] if (parent := config["training"].get("start_from")) else []),
        *(["**Diverged** The training ended much worse than guessing."] if has_diverged else []),
        "Figures, reports, predictions and the exact config are below *Artifacts*. "
        f"The test set was {'scored once, after training' if splits.test else 'not used'}.",
    ]
    return "\n\n".join(paragraphs)
