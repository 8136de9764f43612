from itertools import combinations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.transforms import BboxBase

from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.splits import Splits, spread
from mnist_exp.evaluation import figures, plots
from mnist_exp.evaluation.history import History
from mnist_exp.evaluation.metrics import Evaluation

pytestmark = pytest.mark.usefixtures("rendered_figures")

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
LONG = tuple(f"Fringilla coelebs number {number} of the wood" for number in range(4))
ODD = ("$x$", "a_b^c", r"$\nope$")  # matplotlib would read these as formulas, and stumble over the last


def part(count: int, classes: int, shape: tuple[int, int, int] = (28, 28, 1)) -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    return ImageSet(images, np.arange(count) % classes)


def splits(class_names: tuple[str, ...], shape: tuple[int, int, int] = (28, 28, 1), count: int = 30) -> Splits:
    train, validation, test = (part(number, len(class_names), shape) for number in (count, 12, 12))
    return Splits("fashion", train, validation, test, class_names, "drawn at random", "0" * 64)


def answers(labels: list[int], predicted: list[int], confidence: list[float], names: tuple[str, ...]) -> Evaluation:
    """An evaluation with these answers; what the confidence leaves is shared by the other classes."""
    rest = (1 - np.array(confidence)) / (len(names) - 1)
    probabilities = np.repeat(rest[:, None], len(names), axis=1)
    probabilities[np.arange(len(labels)), predicted] = confidence
    return Evaluation(np.array(labels), probabilities.astype(np.float32), names)


def guesses(names: tuple[str, ...], count: int = 300) -> Evaluation:
    """Answers of which about a fifth are wrong."""
    random = np.random.default_rng(1)
    labels = np.arange(count) % len(names)
    predicted = np.where(random.random(count) < 0.2, random.integers(0, len(names), count), labels)
    return answers(list(labels), list(predicted), list(random.uniform(0.6, 0.99, count)), names)


def history(epochs: int, used: int) -> History:
    rows = [
        {"loss": 1 / epoch, "val_loss": 1.1 / epoch, "accuracy": 1 - 0.5 / epoch, "val_accuracy": 1 - 0.6 / epoch}
        for epoch in range(1, epochs + 1)
    ]
    return History(rows, used)


def texts(figure: Figure) -> list[Text]:
    """What can be read, in the order it was written."""
    FigureCanvasAgg(figure).draw()
    unseen = {id(text) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for text in _unseen(axes, axis)}
    found = [artist for artist in figure.findobj(Text) if isinstance(artist, Text)]
    return [text for text in found if text.get_text() and text.get_visible() and id(text) not in unseen]


def _unseen(axes: Axes, axis: Axis) -> list[Text]:
    """Labels of ticks that matplotlib keeps, but does not draw."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if not (axes.axison and low <= tick.get_loc() <= high)]
    return [text for tick in ticks for text in (tick.label1, tick.label2)]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in texts(figure)]


def assert_readable(figure: Figure) -> None:
    """Nothing written lies outside the picture, and no two texts overlap."""
    upright = [text for text in texts(figure) if not text.get_rotation() % 90]
    boxes = {text: text.get_window_extent() for text in texts(figure)}
    outside = [text.get_text() for text, box in boxes.items() if not _inside(box, figure.bbox)]
    assert not outside
    overlapping = [(a.get_text(), b.get_text()) for a, b in combinations(upright, 2) if boxes[a].overlaps(boxes[b])]
    assert not overlapping


def _inside(inner: BboxBase, outer: BboxBase) -> bool:
    return outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1


def tiles(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def frames(figure: Figure) -> list[Patch]:
    return [patch for patch in figure.axes[0].patches if same_color(patch.get_edgecolor(), plots.RED)]


@pytest.mark.parametrize("shape", [(28, 28, 1), (40, 60, 3), (60, 40, 3)])
def test_samples_shows_ten_named_images_of_each_split(shape: tuple[int, int, int]) -> None:
    data = splits(FASHION, shape)
    figure = figures.samples(data)
    assert len(tiles(figure)) == 30
    assert (tiles(figure)[10] == data.validation.images[0]).all()
    shown = [FASHION[part.labels[place]] for part in data.parts.values() for place in spread(10, len(part))]
    assert [word for word in words(figure) if word in FASHION] == shown
    assert [word.split("\n")[0] for word in words(figure) if "\n" in word] == ["train", "validation", "test"]
    assert_readable(figure)


def test_samples_of_a_small_split_leave_room_empty() -> None:
    assert len(tiles(figures.samples(splits(FASHION, count=3)))) == 23


@pytest.mark.parametrize("names", [LONG, ODD], ids=["long", "odd"])
def test_no_class_name_spoils_a_figure(names: tuple[str, ...]) -> None:
    data, evaluation = splits(names), guesses(names)
    images = part(300, len(names)).images
    for figure in (
        figures.samples(data),
        figures.confusion_matrix(evaluation, "validation"),
        figures.predictions(images, evaluation),
        figures.confident_mistakes(images, evaluation),
        figures.per_class(evaluation),
    ):
        assert_readable(figure)
    assert names is LONG or set(ODD) <= set(words(figure))


@pytest.mark.parametrize(("epochs", "used"), [(1, 1), (2, 1), (200, 150)])
def test_learning_curves_count_epochs_from_one_and_mark_the_used_one(epochs: int, used: int) -> None:
    figure = figures.learning_curves(history(epochs, used))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "Accuracy"]
    for axes in figure.axes:
        train, validation, mark = axes.lines
        for curve in (train, validation):
            assert np.array_equal(curve.get_xdata(), range(1, epochs + 1))
        assert np.array_equal(mark.get_xdata(), [used, used])
        assert f"at epoch {used}" in axes.get_title(loc="right")
    assert {"train", "validation", "used epoch"} <= set(words(figure))
    assert_readable(figure)


def test_learning_curves_show_a_single_epoch_as_points() -> None:
    train, validation, _ = figures.learning_curves(history(1, 1)).axes[0].lines
    assert train.get_marker() == validation.get_marker() == "o"


def test_confusion_matrix_holds_counts_and_percent() -> None:
    evaluation = answers([0, 0, 0, 1], [0, 0, 1, 1], [0.9] * 4, ("cat", "dog"))
    figure = figures.confusion_matrix(evaluation, "Test set")
    counts, shares = figure.axes
    assert [text.get_text() for text in counts.texts] == ["2", "1", "1"]  # no text for zero
    assert [text.get_text() for text in shares.texts] == ["66.7", "33.3", "100"]
    assert {"Test set", "cat", "dog", "true", "predicted"} <= set(words(figure))
    assert_readable(figure)


def test_confusion_matrix_never_rounds_to_none_or_all() -> None:
    labels = [0] * 5001
    figure = figures.confusion_matrix(answers(labels, [1] + [0] * 5000, [0.9] * 5001, ("cat", "dog")), "test")
    assert [text.get_text() for text in figure.axes[1].texts] == [">99.9", "<0.1"]


def test_confusion_matrix_contrasts_numbers_with_their_squares() -> None:
    diagonal, rare = figures.confusion_matrix(answers([0] * 9, [0] * 8 + [1], [0.9] * 9, ("a", "b")), "").axes[0].texts
    assert (diagonal.get_color(), rare.get_color()) == ("white", plots.INK)


def test_confusion_matrix_fits_the_names_of_fashion_mnist() -> None:
    figure = figures.confusion_matrix(guesses(FASHION, 2000), "Test set")
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == list(FASHION)
        assert [label.get_text() for label in axes.get_yticklabels()] == list(FASHION)
    assert_readable(figure)


def test_confusion_matrix_of_many_classes_replaces_numbers_by_a_scale() -> None:
    names = tuple(f"species {number}" for number in range(30))
    figure = figures.confusion_matrix(guesses(names), "Test set")
    assert len(figure.axes) == 4
    assert not any(axes.texts for axes in figure.axes)
    assert set(names) <= set(words(figure))
    assert_readable(figure)


def test_predictions_are_spread_over_the_images_and_mark_what_is_wrong() -> None:
    images = part(30, 10).images
    evaluation = answers([9, 1, 2], [0, 1, 3], [0.9, 0.987, 0.5], FASHION)
    figure = figures.predictions(images[:3], evaluation)
    assert [(tile == image).all() for tile, image in zip(tiles(figure), images[:3], strict=True)] == [True] * 3
    title, *titles = texts(figure)
    assert title.get_text() == "3 of 3 test images, 1 right"
    assert [text.get_text() for text in titles] == [
        "T-shirt/top (90.0%)\ntrue: Ankle boot",
        "Trouser (98.7%)",
        "Dress (50.0%)\ntrue: Pullover",
    ]
    assert [same_color(text.get_color(), plots.RED) for text in titles] == [True, False, True]
    assert len(frames(figure)) == 2
    assert_readable(figure)


def test_predictions_show_as_many_as_asked_for() -> None:
    assert len(tiles(figures.predictions(part(300, 10).images, guesses(FASHION), count=7))) == 7


def test_confident_mistakes_come_most_confident_first() -> None:
    evaluation = answers([0, 0, 0, 0], [1, 0, 2, 3], [0.6, 0.99, 0.9, 0.7], FASHION)
    images = part(4, 10).images
    figure = figures.confident_mistakes(images, evaluation)
    title, *titles = words(figure)
    assert title == "Mistakes, the most confident first: 3 in 4 test images"
    assert [line.split("\n")[0] for line in titles] == ["Pullover (90.0%)", "Dress (70.0%)", "Trouser (60.0%)"]
    assert (tiles(figure)[0] == images[2]).all()
    assert len(frames(figure)) == 3
    assert "2 of 3 in 4" in words(figures.confident_mistakes(images, evaluation, count=2))[0]


def test_confident_mistakes_of_a_perfect_net_say_so() -> None:
    figure = figures.confident_mistakes(part(2, 2).images, answers([0, 1], [0, 1], [0.9, 0.8], ("cat", "dog")))
    assert words(figure) == ["No mistakes: all 2 test images right"]
    assert_readable(figure)


def test_full_pages_of_fashion_mnist_are_readable() -> None:
    images, evaluation = part(300, 10).images, guesses(FASHION)
    for figure in (figures.predictions(images, evaluation), figures.confident_mistakes(images, evaluation)):
        assert len(tiles(figure)) == 20
        assert_readable(figure)


def test_per_class_states_where_its_axis_starts() -> None:
    evaluation = guesses(FASHION, 2000)
    figure = figures.per_class(evaluation)
    start, _ = figure.axes[0].get_xlim()
    assert 0 < start < min(evaluation.per_class["precision"].min(), evaluation.per_class["recall"].min())
    assert {f"the axis starts at {start:g}, not at 0", "precision", "recall", *FASHION} <= set(words(figure))
    assert f"{evaluation.per_class['recall'][9]:.3f}" in words(figure)
    assert_readable(figure)


def test_per_class_starts_at_zero_for_a_class_never_found() -> None:
    figure = figures.per_class(answers([0, 1, 1], [0, 0, 0], [0.9] * 3, ("cat", "dog")))
    assert figure.axes[0].get_xlim()[0] == 0
    assert not any("starts" in word for word in words(figure))


@pytest.mark.parametrize("classes", [2, 30])
def test_per_class_fits_few_and_many_classes(classes: int) -> None:
    assert_readable(figures.per_class(guesses(tuple(f"species {number}" for number in range(classes)))))
