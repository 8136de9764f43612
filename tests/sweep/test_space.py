import json
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from spaces import FILE, RATES, keys, only, refusal, space

from mnist_exp.config.run_config import format_value
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.space import Choices, Numbers


@pytest.mark.parametrize("text", ["null, [1, 2], 'a b', true", "range(0.1, 0.5, 0.1)", "tag(log, range(1, 100, 3))"])
def test_values_are_plain_enough_for_a_record(text: str) -> None:
    grid = [*only(text).grid]
    again = json.loads(json.dumps(grid))
    assert again == grid
    assert [type(value) for value in again] == [type(value) for value in grid]


def test_an_interval_under_a_condition_is_no_grid_either() -> None:
    section = {**RATES, "when": {"optimizer=adadelta": {"optimizer.learning_rate": "interval(0.1, 1)"}}}
    with pytest.raises(ConfigError, match="learning_rate must have values that can be counted"):
        next(space(section).combinations())  # adam's, which has none, would come first


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adam,sgd", "seed=range(3)"],
        ["model.widths=[8],[16,8]", "training.early_stopping_patience=null,3", "model.batch_norm=true,false"],
        ["seed=sort(3,1,2)", "model.dropout=range(0.0,0.5,0.125)", "model.activation=choice(relu,gelu)"],
        ["seed=range(5,1,-2)"],
        ["model.name='a b','c,d'"],
    ],
)
def test_combinations_come_as_in_hydras_own_multirun(overrides: list[str]) -> None:
    parse = OverridesParser.create().parse_override
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)
    hydras = [{part.partition("=")[0]: parse(part).value() for part in job} for job in batch]
    found = space(None, *overrides)
    assert [found.assigned(combination) for combination in found.combinations()] == hydras


def test_a_condition_brings_its_own_range() -> None:
    found = space(RATES)
    assert keys(found) == {
        "optimizer": ["adam", "adadelta"],
        "optimizer=adam/optimizer.learning_rate": [0.001, 0.01, 0.1],
        "optimizer=adam/optimizer.beta_1": [0.8, 0.9],
        "optimizer=adadelta/optimizer.learning_rate": [0.5, 1.0],
    }
    assigned = [found.assigned(values) for values in found.combinations()]
    assert len(assigned) == found.size == 3 * 2 + 2
    assert len({json.dumps(one) for one in assigned}) == 8
    for one in assigned:
        rate = float(one["optimizer.learning_rate"])
        assert (rate >= 0.5) == (one["optimizer"] == "adadelta")
        assert ("optimizer.beta_1" in one) == (one["optimizer"] == "adam")


def test_a_condition_may_name_several_choices() -> None:
    found = space({"optimizer": "adam, nadam, sgd", "when": {"optimizer=adam,nadam": {"optimizer.beta_1": "0.8, 0.9"}}})
    assigned = [found.assigned(values) for values in found.combinations()]
    assert [one["optimizer"] for one in assigned if "optimizer.beta_1" in one] == ["adam", "adam", "nadam", "nadam"]
    assert len(assigned) == found.size == 5


@pytest.mark.parametrize(
    ("choices", "condition", "held"),
    [
        ("true, false", "model.key=true", True),
        ("[128, 64], [64]", "model.key=[128,64]", [128, 64]),
        ("[128], [64], []", "model.key=[ 64 ]", [64]),
        ("null, 3", "model.key=null", None),
        ("0.001, 0.1", "model.key=1e-3", 0.001),
        ("'a b', c", "model.key='a b'", "a b"),
        ("auto, 1", "model.key=choice(1)", 1),
    ],
)
def test_a_condition_may_be_on_a_value(choices: str, condition: str, held: Any) -> None:
    found = space({"model.key": choices, "when": {condition: {"seed": "1, 2"}}})
    assigned = [found.assigned(values) for values in found.combinations()]
    assert [one["model.key"] for one in assigned if "seed" in one] == [held, held]
    assert found.size == len(assigned) == len(only(choices).grid) + 1


def test_a_condition_on_a_group_that_is_not_chosen_is_decided_at_once() -> None:
    section = {"when": RATES["when"]}
    assert keys(space(section, optimizer="adadelta")) == {"optimizer.learning_rate": [0.5, 1.0]}
    assert keys(space(section, optimizer="sgd")) == {}


@pytest.mark.parametrize("override", ["optimizer=adadelta", "optimizer=sgd,adadelta"])
def test_the_command_line_decides_conditions(override: str) -> None:
    found = space(RATES, override, optimizer="adadelta")
    named = {parameter.key for parameter in found.parameters}
    assert named - {"optimizer"} == {"optimizer.learning_rate"}
    for combination in found.combinations():
        assigned = found.assigned(combination)
        assert ("optimizer.learning_rate" in assigned) == (assigned.get("optimizer") != "sgd")


@pytest.mark.parametrize(("given", "counts"), [("true", True), ("True", True), ("false", False)])
def test_a_plain_value_of_the_command_line_decides_conditions_on_it(given: str, counts: bool) -> None:
    section = {"model.batch_norm": "true, false", "when": {"model.batch_norm=true": {"seed": "1, 2"}}}
    assert keys(space(section, f"model.batch_norm={given}")) == ({"seed": [1, 2]} if counts else {})


def test_a_key_of_the_command_line_counts_under_every_condition() -> None:
    fixed, chosen = space(RATES, "optimizer.learning_rate=0.3"), space(RATES, "optimizer.learning_rate=0.3,0.4")
    assert "optimizer.learning_rate" not in {parameter.key for parameter in fixed.parameters}
    assert keys(chosen) == {
        "optimizer": ["adam", "adadelta"],
        "optimizer=adam/optimizer.beta_1": [0.8, 0.9],
        "optimizer.learning_rate": [0.3, 0.4],
    }
    assert chosen.size == (2 + 1) * 2


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            {"when": {"optimizer": {"seed": "1, 2"}}},
            "when must hold conditions in the form `optimizer=adam: {key: values}`",
        ),
        ({"when": {"optimizer=": {"seed": "1, 2"}}}, "but got 'optimizer='"),
        ({"when": {"seed=range(1,3)": {"model.dropout": "0.1, 0.2"}}}, "but got 'seed=range(1,3)'"),
        ({"when": {"optimizer=adam": "0.1, 0.2"}}, "but got 'optimizer=adam'"),
        ({"when": "optimizer=adam"}, "but got 'optimizer=adam'"),
        (
            {"when": {"optimizer=adma": {"seed": "1, 2"}}},
            "adam, adamw, custom, nadam, rmsprop, sgd, but got 'optimizer=adma'; did you mean adam?",
        ),
        (
            {"optimizer": "adam, sgd", "when": {"optimizer=adadelta": {"seed": "1, 2"}}},
            "seed must have a condition on one of adam, sgd, but got 'optimizer=adadelta'",
        ),
        (
            {"model.key": "true, false", "when": {"model.key=yes": {"seed": "1, 2"}}},
            "seed must have a condition on one of true, false, but got 'model.key=yes'",
        ),
        (
            {"when": {"model.dropout=0.1": {"seed": "1, 2"}}},
            "must have a condition on a config group, or on a key that the space chooses without a condition",
        ),
        (
            {"seed": "range(3)", "when": {"seed=1": {"model.dropout": "0.1, 0.2"}}},
            "must have a condition on a key with choices, but got 'seed=1'; seed has numbers, write choice(...) there",
        ),
        (
            {"model.key": "true, false", "when": {"model.key=true": {"optimizer": "adam, sgd"}}},
            "optimizer is a config group, so its condition must be on one, too, but got 'model.key=true'",
        ),
        (
            {
                "model": "mlp, cnn",
                "when": {"model=cnn": {"optimizer": "adam, sgd"}, "optimizer=adam": {"seed": "1, 2"}},
            },
            "seed must have a condition on a key that has no condition itself, but got 'optimizer=adam'",
        ),
        (
            {"optimizer": "adam, sgd", "seed": "1, 2", "when": {"optimizer=adam": {"seed": "3, 4"}}},
            "exclude each other, or outside of all, but got 'optimizer=adam and none'",
        ),
        (
            {
                "optimizer": "adam, sgd",
                "when": {"optimizer=adam,sgd": {"seed": "1, 2"}, "optimizer=sgd": {"seed": "3, 4"}},
            },
            "exclude each other, or outside of all, but got 'optimizer=sgd and optimizer=adam,sgd'",
        ),
        (
            {
                "optimizer": "adam, sgd",
                "model": "mlp, cnn",
                "when": {"optimizer=adam": {"seed": "1, 2"}, "model=cnn": {"seed": "3, 4"}},
            },
            "exclude each other, or outside of all, but got 'model=cnn and optimizer=adam'",
        ),
        (
            {"when": {"optimizer=adam": {"seed": "1, 2"}, "model=mlp": {"seed": "3, 4"}}},
            "exclude each other, or outside of all, but got 'model=mlp and optimizer=adam'",
        ),
    ],
)
def test_a_condition_that_cannot_be_followed_is_refused(section: dict[str, Any], said: str) -> None:
    (line,) = refusal(section)
    assert line.startswith(f"{FILE}: ")
    assert said in line


def test_conditions_that_never_hold_are_no_fault() -> None:
    assert keys(space(RATES, "optimizer=sgd,nadam")) == {"optimizer": ["sgd", "nadam"]}
    both = {"when": {"optimizer=adam": {"seed": "1, 2"}, "model=cnn": {"seed": "3, 4"}}}
    assert keys(space(both)) == {"seed": [1, 2]}


def test_an_interval_is_whole_if_its_key_is_an_integer() -> None:
    section = {
        "seed": "tag(log, interval(1, 100))",
        "model.dropout": "interval(0, 1)",
        "training.epochs": "interval(0.5, 3)",
    }
    integers = space(section).typed(lambda key: key != "model.dropout")
    typed = {parameter.key: parameter.values for parameter in integers.parameters}
    assert typed == {
        "seed": Numbers(1, 100, log=True, whole=True),
        "model.dropout": Numbers(0.0, 1.0),
        "training.epochs": Numbers(0.5, 3.0),
    }
    seed = typed["seed"]
    assert isinstance(seed, Numbers)
    assert isinstance(seed.low, int)


ODD = [
    None, True, 1, 1.0, 1e-05, 1e16, -3, "1", "123", "1e-3", "null", "Null", "inf", "", " a ", "a b", "it's", 'x"y',
    "a=b", "{x}", "a,b", "[1]", "Grün", "é日本", "my data (1).npz", "~/photos", "\\", "\\'", "a\\\\'b\\", "e:f",
    "${training.epochs}", [], [[1], [True, "a b", None]], {"rotation": 0.1, "name": ["a=b"]},
]  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_value_is_shown_as_hydra_reads_it(value: Any) -> None:
    for text, expected in ((format_value(value), value), (format_value([value]), [value])):
        again = OverridesParser.create().parse_override(f"key={text}").value()
        assert repr(again) == repr(expected)


def test_a_choice_is_a_plain_value_and_equal_numbers_of_two_types_are_two_choices() -> None:
    text = ", ".join(format_value(value) for value in ODD if value != "")
    assert repr(only(text).values) == repr(Choices(tuple(value for value in ODD if value != "")))
    choices = only("1, 1.0, true, '1', [1]").values
    assert isinstance(choices, Choices)
    assert [choices.index(value) for value in (1, 1.0, True, "1", [1])] == [0, 1, 2, 3, 4]
    assert [1.0] not in choices
