import pytest

from mnist_exp.config.objective import Objective


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("val/accuracy", "max"),
        ("val/macro_f1", "max"),
        ("val/loss", "min"),
        ("val_loss", "min"),
        ("val/calibration_error", "min"),
        ("accuracy", "max"),
    ],
)
def test_the_direction_follows_from_the_metric(metric: str, direction: str) -> None:
    assert Objective.from_metric(metric).direction == direction


def test_the_best_is_the_first_of_equals() -> None:
    scores = {"a": 0.5, "b": 0.9, "c": 0.9}
    assert Objective("val/accuracy", "max").best(scores, scores.__getitem__) == "b"
    assert Objective("val/loss", "min").best(scores, scores.__getitem__) == "a"
    with pytest.raises(ValueError, match="empty"):
        Objective("val/loss", "min").best([], lambda score: 0.0)


def test_equal_scores_are_not_better() -> None:
    for objective in (Objective("val/accuracy", "max"), Objective("val/loss", "min")):
        assert not objective.is_better(0.5, 0.5)
        assert objective.is_better(0.5, objective.worst)
    assert Objective("val/accuracy", "max").is_better(0.6, 0.5)
    assert Objective("val/loss", "min").is_better(0.4, 0.5)


def test_keras_names_the_same_metric_with_an_underscore() -> None:
    assert Objective.from_metric("val/accuracy").keras_name == "val_accuracy"
