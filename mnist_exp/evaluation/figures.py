"""The figures of a run, drawn without pyplot and its global state. Sizes are in inches, text in points."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mnist_exp.data.splits import Splits, spread
from mnist_exp.evaluation import plots
from mnist_exp.evaluation.architecture import architecture
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import SPLITS, Evaluation
from mnist_exp.evaluation.run_files import CONFUSION, RunResults

SAMPLES = 10  # images of each split
COLUMNS = 5  # tiles in a row of predictions
AUGMENTED = "figures/augmentation.png"


def samples(splits: Splits) -> Figure:
    """Shows 10 images of train, validation and test, spread over each, one row per split, with their classes."""
    side, pitch, left, top = 0.9, 1.06, 1.15, 0.75
    _, tall = _tile_size(splits.image_shape, side)
    step = tall + 0.42
    figure, axes = plots.new_canvas(left + SAMPLES * pitch + 0.1, top + len(splits.parts) * step - 0.25)
    title = f"{splits.name}: some images of each split"
    axes.text(0.2, 0.22, title, size=12, weight="bold", color=plots.INK, va="center", parse_math=False)
    for row, (name, part) in enumerate(splits.parts.items()):
        y = top + row * step
        axes.text(0.2, y + tall / 2, f"{name}\n{len(part):,}", size=10, color=plots.INK, va="center", linespacing=1.5)
        for column, place in enumerate(spread(SAMPLES, len(part))):
            name = plots.shorten(splits.class_names[part.labels[place]], 13)
            _draw_tile(axes, part.images[place], left + column * pitch, y, side, name)
    return figure


def augmented(splits: Splits, seen: np.ndarray) -> Figure:
    """Shows training images, one per row: as they are, then as the net sees them in several steps.

    seen: uint8 (steps, n, height, width, channels), of n training images, spread over them.
    """
    steps, count = seen.shape[:2]
    side, pitch, left, top = 0.9, 1.0, 0.3, 0.85
    _, tall = _tile_size(splits.image_shape, side)
    gap = 0.35
    figure, axes = plots.new_canvas(left + (steps + 1) * pitch + gap, top + count * (tall + 0.1) + 0.1)
    title = f"{splits.name}: training images, and random changes of them as the net sees them"
    axes.text(left, 0.25, title, size=12, weight="bold", color=plots.INK, va="center", parse_math=False)
    axes.text(left, top - 0.12, "as it is", size=9, color=plots.MUTED)
    axes.text(left + pitch + gap, top - 0.12, "in training", size=9, color=plots.MUTED)
    for row, place in enumerate(spread(count, len(splits.train))):
        y = top + row * (tall + 0.1)
        _draw_tile(axes, splits.train.images[place], left, y, side, "")
        for step in range(steps):
            _draw_tile(axes, seen[step, row], left + (step + 1) * pitch + gap, y, side, "")
    return figure


def learning_curves(history: History) -> Figure:
    """Plots loss and accuracy of train and validation by epoch. A dashed line marks the epoch of the weights."""
    figure = plots.new_figure(10.5, 4.2)
    curves = history.curves()
    panels = figure.subplots(1, 2)
    for axes, name in zip(panels, ("loss", "accuracy"), strict=True):
        _draw_curve(axes, curves[name], plots.BLUE, "train")
        _draw_curve(axes, curves[f"val_{name}"], plots.ORANGE, "validation")
        axes.axvline(history.used_epoch, color=plots.MUTED, linestyle="--", linewidth=1, zorder=1, label="used epoch")
        value = curves[f"val_{name}"][history.used_epoch - 1]
        axes.set_title(name.capitalize(), loc="left", size=12, weight="bold", color=plots.INK)
        axes.set_title(f"validation {value:.4f} at epoch {history.used_epoch}", loc="right", size=9, color=plots.MUTED)
        axes.set_xlabel("epoch", size=9, color=plots.INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, len(history.epochs) + max(0.5, 0.02 * len(history.epochs)))
        axes.grid(axis="y", color=plots.LINE, linewidth=0.6)
        plots.remove_frame(axes)
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def confusion_matrix(evaluation: Evaluation, title: str) -> Figure:
    """Shows counts and percentages of each true class side by side: true classes in rows, predicted in columns."""
    counts = evaluation.confusion
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(0.5 * len(counts), 3.2), 8)
    room = 0.075 * min(max(map(len, evaluation.class_names)), plots.AXIS_LETTERS)  # for names beside the axes
    scale = 0.9 if len(counts) > plots.NUMBERED else 0.1
    figure = plots.new_figure(2 * (side + room + scale + 0.6), side + 0.7 * room + 1.3)
    figure.suptitle(title, size=13, weight="bold", color=plots.INK, parse_math=False)
    left, right = figure.subplots(1, 2)
    panels = (left, counts, str, "Images"), (right, shares, _format_percent, "Percent of the true class")
    for axes, values, words, name in panels:
        image = plots.draw_matrix(axes, values, evaluation.class_names)
        axes.set_title(name, size=11, color=plots.INK)
        if len(counts) > plots.NUMBERED:
            _draw_scale(figure, image)
        else:
            plots.write_numbers(axes, image, words, size=min(max(18 * side / len(counts), 6.5), 12))
    return figure


def predictions(images: np.ndarray, evaluation: Evaluation, split: str = "test", count: int = 20) -> Figure:
    """Shows images with the answers, their probabilities and, in red, the true classes of wrong answers.

    images: uint8 (n, height, width, channels), 0-255, in the order of the evaluation.
    """
    chosen = spread(count, len(images))
    right = int((evaluation.predicted == evaluation.labels)[chosen].sum())
    return _show_answers(images, evaluation, chosen, f"{len(chosen)} of {len(images):,} {split} images, {right} right")


def confident_mistakes(images: np.ndarray, evaluation: Evaluation, split: str = "test", count: int = 20) -> Figure:
    """Shows the wrong answers with the highest probabilities, the highest first. images: as for predictions."""
    wrong = np.flatnonzero(evaluation.predicted != evaluation.labels)
    confidence = evaluation.probabilities[wrong].max(axis=1)
    chosen = wrong[np.argsort(-confidence, kind="stable")][:count]
    shown = f"{len(wrong):,}" if len(chosen) == len(wrong) else f"{len(chosen)} of {len(wrong):,}"
    title = f"Mistakes, the most confident first: {shown} in {len(images):,} {split} images"
    if not len(wrong):
        title = f"No mistakes: all {len(images):,} {split} images right"
    return _show_answers(images, evaluation, chosen, title)


def per_class(evaluation: Evaluation) -> Figure:
    """Shows precision and recall of each class as bars. The axis starts near the lowest value; its label says where."""
    classes = len(evaluation.class_names)
    values = {name: evaluation.per_class[name] for name in ("precision", "recall")}
    start = _axis_start(float(min(value.min() for value in values.values())))
    figure = plots.new_figure(8.2, 1.6 + classes * min(0.46, max(0.3, 9 / classes)))
    axes = figure.subplots()
    for offset, colour, (name, value) in zip((-0.2, 0.2), (plots.BLUE, plots.ORANGE), values.items(), strict=True):
        bars = axes.barh(np.arange(classes) + offset, value, 0.38, color=colour, label=name)
        axes.bar_label(bars, fmt="%.3f", padding=3, size=8, color=plots.INK)
    names = [plots.shorten(name, plots.AXIS_LETTERS) for name in evaluation.class_names]
    axes.set_yticks(range(classes), names, parse_math=False)
    axes.set(xlim=(start, 1 + 0.09 * (1 - start)), ylim=(classes - 0.4, -0.6))
    axes.set_xticks([tick for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(start, 1) if start <= tick <= 1])
    axes.set_xlabel(f"the axis starts at {start:g}, not at 0" if start else "", size=9, color=plots.MUTED)
    axes.set_title("Precision and recall of each class", loc="left", size=12, weight="bold", color=plots.INK)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    plots.remove_frame(axes)
    return figure


def originals_and_tiles(pictures: Sequence[tuple[np.ndarray, np.ndarray, str, bool]]) -> Figure:
    """Shows pairs, three in a row: an original image, uint8 (height, width, 3), and the tile that the model got.

    pictures: original, tile, the answer to write above them, and whether to write it in red.
    """
    side, pitch, columns, top = 1.25, 3.15, 3, 0.55
    rows = math.ceil(len(pictures) / columns)
    figure, axes = plots.new_canvas(0.35 + min(columns, len(pictures)) * pitch, top + rows * (side + 0.5) - 0.1)
    for place, (image, tile, words, marked) in enumerate(pictures):
        row, column = divmod(place, columns)
        x, y = 0.3 + column * pitch, top + row * (side + 0.5)
        for left, shown in ((x, image), (x + side + 0.12, tile)):
            _draw_tile(axes, shown, left, y, side, "")
            axes.add_patch(Rectangle((left, y), side, side, fill=False, edgecolor=plots.LINE, linewidth=0.8))
        colour = plots.RED if marked else plots.INK
        axes.text(x + side + 0.06, y - 0.08, words, size=10, color=colour, ha="center", va="bottom", parse_math=False)
    return figure


# Every figure of a run below its artifacts, except confusion matrices. To add a figure, add a line.
FIGURES: dict[str, Callable[[RunResults], Figure]] = {
    "figures/samples.png": lambda run: samples(run.splits),
    "figures/learning_curves.png": lambda run: learning_curves(run.history),
    "figures/predictions.png": lambda run: predictions(*run.shown),
    "figures/confident_mistakes.png": lambda run: confident_mistakes(*run.shown),
    "figures/per_class.png": lambda run: per_class(run.shown[1]),
    "figures/architecture.png": lambda run: architecture(run.network),
}


def draw_figures(folder: Path, run: RunResults, wanted: Callable[[int], bool] = lambda place: True) -> list[str]:
    """Draws every figure of the run below `folder`. Returns their paths in it.

    wanted: which of them, by their places from 0 on, so that two processes can share the work.
    """
    figures = {path: partial(make, run) for path, make in FIGURES.items()}
    if run.augmented is not None:
        figures[AUGMENTED] = partial(augmented, run.splits, run.augmented)
    for name, evaluation in run.evaluations.items():
        words = SPLITS[name]
        figures[CONFUSION.format(words=words)] = partial(confusion_matrix, evaluation, words.capitalize())
    drawn = [path for place, path in enumerate(figures) if wanted(place)]
    for path in drawn:
        (folder / path).parent.mkdir(exist_ok=True)
        plots.save(figures[path](), folder / path)
    return drawn


def _show_answers(images: np.ndarray, evaluation: Evaluation, chosen: np.ndarray, title: str) -> Figure:
    """Shows the chosen images with the answers to them."""
    side, pitch, left, top = 1.35, 1.75, 0.3, 1.05
    _, tall = _tile_size(images.shape[1:], side)
    step = tall + 0.62
    rows = math.ceil(len(chosen) / COLUMNS)
    figure, axes = plots.new_canvas(left + COLUMNS * pitch, top + rows * step - 0.4 * bool(rows))
    axes.text(left, 0.3, title, size=12, weight="bold", color=plots.INK, va="center")
    for place, index in enumerate(chosen):
        row, column = divmod(place, COLUMNS)
        predicted, label = evaluation.predicted[index], evaluation.labels[index]
        words = (
            f"{plots.shorten(evaluation.class_names[predicted], 14)} ({evaluation.probabilities[index, predicted]:.1%})"
        )
        if predicted != label:
            words += f"\ntrue: {plots.shorten(evaluation.class_names[label], 16)}"
        x, y = left + column * pitch + (pitch - left - side) / 2, top + row * step
        _draw_tile(axes, images[index], x, y, side, words, wrong=predicted != label)
    return figure


def _draw_tile(axes: Axes, image: np.ndarray, x: float, y: float, side: float, words: str, wrong: bool = False) -> None:
    """Draws a grey or RGB image into a square with the top left corner (x, y), and the words above it."""
    wide, tall = _tile_size(image.shape, side)
    x += (side - wide) / 2
    height, width, _ = image.shape
    axes.imshow(np.broadcast_to(image, (height, width, 3)), extent=(x, x + wide, y + tall, y), aspect="auto")
    colour, middle = plots.RED if wrong else plots.INK, x + wide / 2
    axes.text(
        middle, y - 0.07, words, size=9, color=colour, ha="center", va="bottom", linespacing=1.3, parse_math=False
    )
    if wrong:
        axes.add_patch(Rectangle((x, y), wide, tall, fill=False, edgecolor=colour, linewidth=2.5))


def _tile_size(image_shape: Sequence[int], side: float) -> tuple[float, float]:
    """Returns width and height of an image whose longer side is `side`."""
    height, width = image_shape[:2]
    return side * width / max(height, width), side * height / max(height, width)


def _draw_curve(axes: Axes, values: list[float], colour: str, label: str) -> None:
    marker = "o" if len(values) <= 30 else ""
    axes.plot(range(1, len(values) + 1), values, color=colour, marker=marker, markersize=4, linewidth=1.6, label=label)


def _draw_scale(figure: Figure, image: AxesImage) -> None:
    """Draws a colour bar, for a matrix without numbers."""
    bar = figure.colorbar(image, ax=image.axes, shrink=0.6, pad=0.02, ticks=MaxNLocator(5, integer=True))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, color=plots.LINE, labelcolor=plots.INK)


def _format_percent(share: float) -> str:
    """Formats a percentage with one decimal. Only exact values become 0 and 100."""
    if share == 100:
        return "100"
    return "<0.1" if share < 0.05 else ">99.9" if share >= 99.95 else f"{share:.1f}"


def _axis_start(lowest: float) -> float:
    """Returns the highest round number at which the lowest bar is still visible; 0 if the values are far apart."""
    return next((start for start in (0.98, 0.95, 0.9, 0.8, 0.7, 0.5) if lowest > start + 0.1 * (1 - start)), 0.0)
