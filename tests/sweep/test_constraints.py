import pytest

from mnist_exp.config.schema import Limits
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.constraints import find_violation, read_constraints

GIVEN = read_constraints({"parameters": Limits(max=50_000), "val/accuracy": Limits(min=0.9, max=1.0)})


@pytest.mark.parametrize(
    ("parameters", "accuracy", "said"),
    [
        (50_000, 0.9, ""),
        (50_001, 0.95, "parameters is 50,001, above the maximum of 50,000"),
        (10, 0.89, "val/accuracy is 0.89, below the minimum of 0.9"),
        (10, float("nan"), "val/accuracy is nan, above the maximum of 1"),
    ],
)
def test_a_value_outside_of_its_limits_is_named(parameters, accuracy, said):
    assert find_violation(GIVEN, {"parameters": parameters, "val/accuracy": accuracy}) == said


def test_a_metric_that_a_run_lacks_is_an_error_that_names_those_it_has():
    with pytest.raises(ConfigError, match=r"must name metrics of a run: parameters, val/loss, but got 'val/accuracy'"):
        find_violation(GIVEN, {"parameters": 1, "val/loss": 1.0, "wall_seconds/data": 1.0})
