import numpy as np
import pytest

from mnist_exp.commands.comparison_page import Change, ScoredRun

CLASSES = ("zero", "one")


def scored(labels, predicted, digests, classes=CLASSES) -> ScoredRun:
    arrays = {
        "val_labels": np.array(labels),
        "val_predicted": np.array(predicted),
        "val_digests": np.array(digests, "S4"),
    }
    return ScoredRun("run", arrays, classes)


def test_a_difference_is_that_of_the_shared_images() -> None:
    """By counts of unequal sets the first run, which is right on every image, would look worse than the second."""
    small = scored([0, 1], [0, 1], ["a", "b"])
    large = scored([1, 0, 0, 0, 1], [0, 0, 0, 0, 1], ["b", "a", "c", "d", "e"])
    change = Change.between(small, large)
    assert change.values.tolist() == [[0, 0], [1, -1]]
    assert change.unit == "on the 2 images that both scored"


def test_without_shared_images_it_is_that_of_shares() -> None:
    small = scored([0, 0, 1], [0, 1, 1], ["a", "b", "c"])
    large = scored([0] * 10 + [1] * 4, [0] * 10 + [0] + [1] * 3, [f"x{number}" for number in range(14)])
    change = Change.between(small, large)
    assert change.values == pytest.approx(np.array([[50, -50], [25, -25]]))
    assert "percent" in change.unit
    assert "no shared images" in change.unit


def test_a_class_without_images_has_no_share() -> None:
    change = Change.between(scored([0], [0], ["a"]), scored([0, 1], [0, 1], ["b", "c"]))
    assert change.values[0].tolist() == [0, 0]
    assert np.isnan(change.values[1]).all()


def test_other_classes_are_not_subtracted() -> None:
    """Ten digits and ten kinds of clothes are both ten classes."""
    assert Change.between(scored([0], [0], ["a"]), scored([0], [0], ["a"], ("shirt", "shoe"))) is None


def test_runs_of_unlike_data_are_drawn(run_main, tmp_path) -> None:
    picture, page = tmp_path / "x.png", tmp_path / "x.html"
    status, _, err = run_main("compare", "elsewhere", "good", "--figure", str(picture), "--html", str(page))
    assert status == 0, err
    assert picture.stat().st_size > 10_000
    text = page.read_text()
    assert text.count('class="sortable"') == 2
    assert "They are ranked only within each." in text
    assert "validation adjusted p" in text
