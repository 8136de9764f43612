"""matplotlib figures from plain arrays: sizes in inches, text in points, no pyplot and so no global state."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.splits import Splits
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation
from mnist_exp.evaluation.plots import (
    AXIS_LETTERS,
    BLUE,
    INK,
    LINE,
    MUTED,
    NUMBERED,
    ORANGE,
    RED,
    canvas,
    laid_out,
    matrix,
    numbers,
    plain,
    short,
)

SAMPLES = 10  # images of each split
COLUMNS = 5  # tiles in a row of predictions


def samples(splits: Splits) -> Figure:
    """The first 10 images of train, validation and test, a row each, every tile titled by its class."""
    side, pitch, left, top = 0.9, 1.06, 1.15, 0.75
    _, tall = _tile_size(splits.image_shape, side)
    step = tall + 0.42
    figure, axes = canvas(left + SAMPLES * pitch + 0.1, top + len(splits.parts) * step - 0.25)
    title = f"{splits.name}: the first images of each split"
    axes.text(0.2, 0.22, title, size=12, weight="bold", color=INK, va="center", parse_math=False)
    for row, (name, part) in enumerate(splits.parts.items()):
        y = top + row * step
        axes.text(0.2, y + tall / 2, f"{name}\n{len(part):,}", size=10, color=INK, va="center", linespacing=1.5)
        for column, (image, words) in enumerate(_named(part, splits.class_names)):
            _tile(axes, image, left + column * pitch, y, side, words)
    return figure


def learning_curves(history: History) -> Figure:
    """Loss and accuracy against the epoch, from 1, for train and validation; a dashed line marks the used epoch."""
    figure = laid_out(10.5, 4.2)
    curves = history.curves()
    panels = figure.subplots(1, 2)
    for axes, name in zip(panels, ("loss", "accuracy"), strict=True):
        _curve(axes, curves[name], BLUE, "train")
        _curve(axes, curves[f"val_{name}"], ORANGE, "validation")
        axes.axvline(history.used_epoch, color=MUTED, linestyle="--", linewidth=1, zorder=1, label="used epoch")
        value = curves[f"val_{name}"][history.used_epoch - 1]
        axes.set_title(name.capitalize(), loc="left", size=12, weight="bold", color=INK)
        axes.set_title(f"validation {value:.4f} at epoch {history.used_epoch}", loc="right", size=9, color=MUTED)
        axes.set_xlabel("epoch", size=9, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, len(history.epochs) + max(0.5, 0.02 * len(history.epochs)))
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        plain(axes)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    return figure


def confusion_matrix(evaluation: Evaluation, title: str) -> Figure:
    """Counts, and shares of each true class in percent, side by side: true classes in rows, predicted in columns."""
    counts = evaluation.confusion
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(0.5 * len(counts), 3.2), 8)
    room = 0.075 * min(max(map(len, evaluation.class_names)), AXIS_LETTERS)  # for names beside the axes
    scale = 0.9 if len(counts) > NUMBERED else 0.1
    figure = laid_out(2 * (side + room + scale + 0.6), side + 0.7 * room + 1.3)
    figure.suptitle(title, size=13, weight="bold", color=INK, parse_math=False)
    left, right = figure.subplots(1, 2)
    panels = (left, counts, str, "Images"), (right, shares, _percent, "Percent of the true class")
    for axes, values, words, name in panels:
        image = matrix(axes, values, evaluation.class_names)
        axes.set_title(name, size=11, color=INK)
        if len(counts) > NUMBERED:
            _scale(figure, image)
        else:
            numbers(axes, image, words, size=min(max(18 * side / len(counts), 6.5), 12))
    return figure


def predictions(images: np.ndarray, evaluation: Evaluation, split: str = "test", count: int = 20) -> Figure:
    """The first images with the answers given, their probability and, in red, the true class where an answer is wrong.

    images: uint8 (n, height, width, channels), 0-255, those the evaluation is of.
    """
    chosen = np.arange(min(count, len(images)))
    right = int((evaluation.predicted == evaluation.labels)[chosen].sum())
    return _answers(images, evaluation, chosen, f"The first {len(chosen)} {split} images, {right} right")


def confident_mistakes(images: np.ndarray, evaluation: Evaluation, split: str = "test", count: int = 20) -> Figure:
    """The wrong answers that seemed most probable, the most probable first; images as for predictions."""
    wrong = np.flatnonzero(evaluation.predicted != evaluation.labels)
    confidence = evaluation.probabilities[wrong].max(axis=1)
    chosen = wrong[np.argsort(-confidence, kind="stable")][:count]
    shown = f"{len(wrong):,}" if len(chosen) == len(wrong) else f"{len(chosen)} of {len(wrong):,}"
    title = f"Mistakes, the most confident first: {shown} in {len(images):,} {split} images"
    if not len(wrong):
        title = f"No mistakes: all {len(images):,} {split} images right"
    return _answers(images, evaluation, chosen, title)


def per_class(evaluation: Evaluation) -> Figure:
    """Precision and recall of each class as bars; the axis starts near the lowest value, and says where."""
    classes = len(evaluation.class_names)
    values = {name: evaluation.per_class[name] for name in ("precision", "recall")}
    start = _axis_start(float(min(value.min() for value in values.values())))
    figure = laid_out(8.2, 1.6 + classes * min(0.46, max(0.3, 9 / classes)))
    axes = figure.subplots()
    for offset, colour, (name, value) in zip((-0.2, 0.2), (BLUE, ORANGE), values.items(), strict=True):
        bars = axes.barh(np.arange(classes) + offset, value, 0.38, color=colour, label=name)
        axes.bar_label(bars, fmt="%.3f", padding=3, size=8, color=INK)
    axes.set_yticks(range(classes), [short(name, AXIS_LETTERS) for name in evaluation.class_names], parse_math=False)
    axes.set_ylim(classes - 0.4, -0.6)
    axes.set_xlim(start, 1 + 0.09 * (1 - start))
    axes.set_xticks([tick for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(start, 1) if start <= tick <= 1])
    axes.set_xlabel(f"the axis starts at {start:g}, not at 0" if start else "", size=9, color=MUTED)
    axes.set_title("Precision and recall of each class", loc="left", size=12, weight="bold", color=INK)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    plain(axes)
    return figure


def originals_and_tiles(pictures: Sequence[tuple[np.ndarray, np.ndarray, str, bool]]) -> Figure:
    """Pairs, three in a row: an image as it was, uint8 (height, width, 3), and the tile the model saw of it.

    Each has the answer above it, in red where it is marked as unsure.
    """
    side, pitch, columns, top = 1.25, 3.15, 3, 0.55
    rows = math.ceil(len(pictures) / columns)
    figure, axes = canvas(0.35 + min(columns, len(pictures)) * pitch, top + rows * (side + 0.5) - 0.1)
    for place, (image, tile, words, marked) in enumerate(pictures):
        row, column = divmod(place, columns)
        x, y = 0.3 + column * pitch, top + row * (side + 0.5)
        for left, shown in ((x, image), (x + side + 0.12, tile)):
            _tile(axes, shown, left, y, side, "")
            axes.add_patch(Rectangle((left, y), side, side, fill=False, edgecolor=LINE, linewidth=0.8))
        colour = RED if marked else INK
        axes.text(x + side + 0.06, y - 0.08, words, size=10, color=colour, ha="center", va="bottom", parse_math=False)
    return figure


def _named(part: ImageSet, class_names: Sequence[str]) -> list[tuple[np.ndarray, str]]:
    """The first images with their class names."""
    names = [short(class_names[label], 13) for label in part.labels[:SAMPLES]]
    return list(zip(part.images[:SAMPLES], names, strict=True))


def _answers(images: np.ndarray, evaluation: Evaluation, chosen: np.ndarray, title: str) -> Figure:
    """Tiles of the chosen images, titled by the answer given to them."""
    side, pitch, left, top = 1.35, 1.75, 0.3, 1.05
    _, tall = _tile_size(images.shape[1:], side)
    step = tall + 0.62
    rows = math.ceil(len(chosen) / COLUMNS)
    figure, axes = canvas(left + COLUMNS * pitch, top + rows * step - 0.4 * bool(rows))
    axes.text(left, 0.3, title, size=12, weight="bold", color=INK, va="center")
    if not rows:
        return figure
    for place, index in enumerate(chosen):
        row, column = divmod(place, COLUMNS)
        words, wrong = _answer(evaluation, index)
        x, y = left + column * pitch + (pitch - left - side) / 2, top + row * step
        _tile(axes, images[index], x, y, side, words, wrong)
    return figure


def _answer(evaluation: Evaluation, index: int) -> tuple[str, bool]:
    """The words under which an image is shown, and whether its answer is wrong."""
    predicted, label = evaluation.predicted[index], evaluation.labels[index]
    words = f"{short(evaluation.class_names[predicted], 14)} ({evaluation.probabilities[index, predicted]:.1%})"
    if predicted == label:
        return words, False
    return f"{words}\ntrue: {short(evaluation.class_names[label], 16)}", True


def _tile(axes: Axes, image: np.ndarray, x: float, y: float, side: float, words: str, wrong: bool = False) -> None:
    """One image in a square of this side whose top left corner is (x, y), grey or RGB, with words above it."""
    wide, tall = _tile_size(image.shape, side)
    x += (side - wide) / 2
    height, width, _ = image.shape
    axes.imshow(np.broadcast_to(image, (height, width, 3)), extent=(x, x + wide, y + tall, y), aspect="auto")
    colour, middle = RED if wrong else INK, x + wide / 2
    axes.text(
        middle, y - 0.07, words, size=9, color=colour, ha="center", va="bottom", linespacing=1.3, parse_math=False
    )
    if wrong:
        axes.add_patch(Rectangle((x, y), wide, tall, fill=False, edgecolor=colour, linewidth=2.5))


def _tile_size(image_shape: Sequence[int], side: float) -> tuple[float, float]:
    """Width and height of an image whose longer side is `side`."""
    height, width = image_shape[:2]
    return side * width / max(height, width), side * height / max(height, width)


def _curve(axes: Axes, values: list[float], colour: str, label: str) -> None:
    marker = "o" if len(values) <= 30 else ""
    axes.plot(range(1, len(values) + 1), values, color=colour, marker=marker, markersize=4, linewidth=1.6, label=label)


def _scale(figure: Figure, image: AxesImage) -> None:
    """What the colours mean, where no numbers say it."""
    bar = figure.colorbar(image, ax=image.axes, shrink=0.6, pad=0.02, ticks=MaxNLocator(5, integer=True))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, color=LINE, labelcolor=INK)


def _percent(share: float) -> str:
    """One digit after the point; 0.0 and 100.0 are never said of a share that is neither."""
    if share == 100:
        return "100"
    return "<0.1" if share < 0.05 else ">99.9" if share >= 99.95 else f"{share:.1f}"


def _axis_start(lowest: float) -> float:
    """The highest round number that still leaves the lowest bar a visible length; 0 where values lie far apart."""
    return next((start for start in (0.98, 0.95, 0.9, 0.8, 0.7, 0.5) if lowest > start + 0.1 * (1 - start)), 0.0)
