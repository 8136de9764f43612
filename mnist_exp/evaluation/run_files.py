"""The list of the files that a run keeps, and the texts that describe a run and its model."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from PIL.Image import Image

from mnist_exp.data.splits import Splits
from mnist_exp.evaluation import figures
from mnist_exp.evaluation.architecture import architecture
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.matrix_image import confusion_image
from mnist_exp.evaluation.metrics import Evaluation, format_scores
from mnist_exp.evaluation.plots import save
from mnist_exp.evaluation.predictions import write_predictions

if TYPE_CHECKING:
    import keras

FIGURES, CONFUSION = "figures/", "figures/confusion_{words}.png"
SPLITS = {"val": "validation", "test": "test"}  # names of splits in metrics, and in words


@dataclass(frozen=True)
class RunResults:
    """What the files of a run are made from. evaluations: by the name of the split in metrics; the last is shown."""

    model: "keras.Model"
    splits: Splits
    history: History
    evaluations: Mapping[str, Evaluation]

    @property
    def shown(self) -> tuple[np.ndarray, Evaluation, str]:
        """Images, evaluation and name of the split whose single images are shown."""
        name = list(self.evaluations)[-1]
        return self.splits.scored[name].images, self.evaluations[name], SPLITS[name]


# Every file of a run below its artifacts, except predictions.npz. To add a file, add a line: a function of RunResults
# that returns a text or a figure.
FILES: dict[str, Callable[[RunResults], str | Figure]] = {
    "model_summary.txt": lambda run: summarize(run.model),
    "history.json": lambda run: _to_json({"used_epoch": run.history.used_epoch, **run.history.curves()}),
    "figures/samples.png": lambda run: figures.samples(run.splits),
    "figures/learning_curves.png": lambda run: figures.learning_curves(run.history),
    "figures/predictions.png": lambda run: figures.predictions(*run.shown),
    "figures/confident_mistakes.png": lambda run: figures.confident_mistakes(*run.shown),
    "figures/per_class.png": lambda run: figures.per_class(run.shown[1]),
    "figures/architecture.png": lambda run: architecture(run.model),
}

# The same for each split that was evaluated: a function of its evaluation and its name in words.
FILES_OF_SPLIT: dict[str, Callable[[Evaluation, str], str | Figure]] = {
    "reports/{name}.txt": lambda evaluation, words: evaluation.report(),
    "reports/{name}.json": lambda evaluation, words: _to_json(evaluation.report_json()),
    CONFUSION: lambda evaluation, words: figures.confusion_matrix(evaluation, words.capitalize()),
}


def write(folder: Path, run: RunResults, draw: bool = True) -> None:
    """Writes every file of the run below `folder`. draw: all figures; else confusion matrices alone, in little time."""
    write_predictions(folder / "predictions.npz", run.splits, run.evaluations)
    for path, make in _all_files(run).items():
        if not path.startswith(FIGURES):
            _write(folder / path, make())
    if draw:
        draw_figures(folder, run)
        return
    for name, evaluation in run.evaluations.items():
        title = f"{SPLITS[name].capitalize()}, {len(evaluation.labels):,} images"
        _write(folder / CONFUSION.format(words=SPLITS[name]), confusion_image(evaluation, title))


def draw_figures(folder: Path, run: RunResults) -> list[str]:
    """Draws every figure of the run below `folder`. Returns their paths in it."""
    figures = {path: make for path, make in _all_files(run).items() if path.startswith(FIGURES)}
    for path, make in figures.items():
        _write(folder / path, make())
    return list(figures)


def _all_files(run: RunResults) -> dict[str, Callable[[], str | Figure]]:
    found: dict[str, Callable[[], str | Figure]] = {path: partial(make, run) for path, make in FILES.items()}
    for name, evaluation in run.evaluations.items():
        words = SPLITS[name]
        found |= {p.format(name=name, words=words): partial(m, evaluation, words) for p, m in FILES_OF_SPLIT.items()}
    return found


def _write(path: Path, content: str | Figure | Image) -> None:
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif isinstance(content, Figure):
        save(content, path)
    else:
        content.save(path)


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
    rows = [f"| {' | '.join((SPLITS[split], *format_scores(metrics, split)))} |" for split in splits.scored]
    sizes = ", ".join(f"{len(part):,} {split}" for split, part in splits.parts.items())
    height, width, _ = splits.image_shape
    net, optimizer = (config[section]["_target_"].rpartition(".")[2] for section in ("model", "optimizer"))
    paragraphs = [
        "\n".join(["| | accuracy | 95% interval | macro F1 | cross-entropy |", "|---|---|---|---|---|", *rows]),
        f"**Data** {splits.description}: {sizes}; {height}x{width} pixels.",
        f"**Net** {net}, {model.count_params():,} parameters.",
        f"**Training** {optimizer}, learning rate {config['optimizer']['learning_rate']:g} "
        f"({config['optimizer']['schedule']}), batch {config['training']['batch_size']}, {len(history.epochs)} epochs, "
        f"weights of epoch {history.used_epoch}, seed {config['seed']}.",
        *(["**Diverged** The training ended much worse than guessing."] if has_diverged else []),
        "Figures, reports, predictions and the exact config are below *Artifacts*. "
        f"The test set was {'scored once, after training' if splits.test else 'not used'}.",
    ]
    return "\n\n".join(paragraphs)
