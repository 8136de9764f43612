import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from mnist_exp.composition import options
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.space import Choices, Numbers, Parameter, Space, parse, read, written

FILE = "sweeps/mine.yaml"
RATES = {
    "optimizer": "adam, adadelta",
    "when": {
        "optimizer=adam": {"optimizer.learning_rate": "0.001, 0.01, 0.1", "optimizer.beta_1": "0.8, 0.9"},
        "optimizer=adadelta": {"optimizer.learning_rate": "0.5, 1.0"},
    },
}


def space(section: Mapping[str, Any] | None = None, *overrides: str, **choices: str) -> Space:
    return parse(section or {}, FILE, overrides, {"model": "mlp", "optimizer": "adam", **choices})


def only(text: str, key: str = "training.batch_size") -> Parameter:
    (parameter,) = space({key: text}).parameters
    return parameter


def values(text: str, key: str = "training.batch_size") -> list[Any]:
    """What a trial may get, as it stands in its config."""
    return [read(written(value)) for value in only(text, key).grid]


def keys(found: Space) -> dict[str, list[Any]]:
    return {parameter.name: [read(written(value)) for value in parameter.grid] for parameter in found.parameters}


def refusal(section: Mapping[str, Any] | None = None, *overrides: str, **choices: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        space(section, *overrides, **choices)
    return str(refused.value).splitlines()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("16, 32", [16, 32]),
        ("choice(16, 32)", [16, 32]),
        ("choice(16)", [16]),
        ("relu, gelu", ["relu", "gelu"]),
        ("0.1, 1e-3, 2.0", [0.1, 0.001, 2.0]),
        ("true, false", [True, False]),
        ("null, 3", [None, 3]),
        ("[], [128], [128, 64]", [[], [128], [128, 64]]),
        ("[[32], [64]], [[32, 64]]", [[[32], [64]], [[32, 64]]]),
        ("{rotation: 0.1}, {zoom: 0.2}", [{"rotation": 0.1}, {"zoom": 0.2}]),
        ("null, auto, 1, 2.5, true, [1, a]", [None, "auto", 1, 2.5, True, [1, "a"]]),
        ("'a b', 'c,d', e:f", ["a b", "c,d", "e:f"]),
        ("'null', null, '1', 1, '[1]', [1]", ["null", None, "1", 1, "[1]", [1]]),
        ("float(1, 2)", [1.0, 2.0]),
        ("int(1.5, 2.5)", [1, 2]),
        ("sort(3, 1, 2)", [1, 2, 3]),
        ("sort(3, 1, 2, reverse=true)", [3, 2, 1]),
        ("sort(range(4), reverse=true)", [3, 2, 1, 0]),
        ("range(3)", [0, 1, 2]),
        ("range(16, 65, 16)", [16, 32, 48, 64]),
        ("range(5, 1, -2)", [5, 3]),
        ("range(0.8, 1.0, 0.05)", [0.8, 0.85, 0.9, 0.95]),
        ("float(range(1, 4))", [1.0, 2.0, 3.0]),
        ("tag(log, range(32, 257, 2))", [32, 64, 128, 256]),
        ("tag(log, range(1e-4, 1e-1, 10))", [0.0001, 0.001, 0.01]),
    ],
)
def test_hydras_syntax_gives_plain_values_of_their_own_types(text: str, found: list[Any]) -> None:
    assert values(text) == found
    assert [type(value) for value in values(text)] == [type(value) for value in found]


@pytest.mark.parametrize("text", ["null, [1, 2], 'a b', true", "range(0.1, 0.5, 0.1)", "tag(log, range(1, 100, 3))"])
def test_values_are_plain_enough_for_a_record(text: str) -> None:
    grid = [*only(text).grid]
    again = json.loads(json.dumps(grid))
    assert again == grid
    assert [type(value) for value in again] == [type(value) for value in grid]


def test_a_choice_written_twice_is_one() -> None:
    assert values("16, 32, 16") == [16, 32]


@pytest.mark.parametrize(
    "text",
    ["range(1, 8, 7)", "range(0.1, 0.4, 0.1)", "range(0, 0.9, 0.3)", "range(-0.3, 0, 0.1)", "tag(log, range(1, 8, 2))"],
)
def test_a_range_leaves_out_its_end(text: str) -> None:
    stop = float(text.strip(")").split(",")[-2])
    assert values(text)
    assert not any(math.isclose(value, stop, abs_tol=1e-9) or value > stop for value in values(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(0, 1)", Numbers(0.0, 1.0)),
        ("int(interval(1, 10))", Numbers(1, 10, whole=True)),
        ("tag(log, interval(1e-4, 1))", Numbers(1e-4, 1.0, log=True)),
        ("tag(log, int(interval(16, 256)))", Numbers(16, 256, log=True, whole=True)),
    ],
)
def test_an_interval_is_drawn_from_and_not_counted(text: str, expected: Numbers) -> None:
    assert only(text).values == expected
    assert not space({"seed": text}).finite
    with pytest.raises(ConfigError, match=rf"seed is an interval \({FILE}\); write range"):
        next(space({"seed": text}).combinations())


def test_an_interval_under_a_condition_is_no_grid_either() -> None:
    section = {**RATES, "when": {"optimizer=adadelta": {"optimizer.learning_rate": "interval(0.1, 1)"}}}
    with pytest.raises(ConfigError, match="learning_rate is an interval"):
        next(space(section).combinations())  # adam's, which has none, would come first


def test_shuffled_values_are_all_there_in_an_order_that_stays() -> None:
    assert sorted(values("shuffle(range(20))")) == [*range(20)]
    assert values("shuffle(range(20))") == values("shuffle(range(20))") != [*range(20)]
    assert values("shuffle(range(20))") != values("shuffle(range(20))", "seed")
    assert sorted(values("shuffle(a, b, c)")) == ["a", "b", "c"]
    assert set(values("shuffle(range(0.8, 1.0, 0.05))")) == {0.8, 0.85, 0.9, 0.95}


def test_a_glob_takes_the_choices_of_a_group_that_match() -> None:
    assert values("glob(*)", "optimizer") == options("optimizer")
    assert values("glob(ada*)", "optimizer") == ["adadelta", "adam", "adamw"]
    assert values("glob([ada*, sgd], exclude=adamw)", "optimizer") == ["adadelta", "adam", "sgd"]


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
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)
    hydras = [{part.partition("=")[0]: read(part.partition("=")[2]) for part in job} for job in batch]
    found = space(None, *overrides)
    ours = [found.assigned(combination) for combination in found.combinations()]
    assert [{key: read(token) for key, token in assigned.items()} for assigned in ours] == hydras


def test_a_file_and_a_command_line_make_one_space() -> None:
    found = space({"model.dropout": "0.0, 0.5", "optimizer": "adam, sgd"}, "seed=1,2")
    assert keys(found) == {"model.dropout": [0.0, 0.5], "optimizer": ["adam", "sgd"], "seed": [1, 2]}
    assert [parameter.source for parameter in found.parameters] == [FILE, FILE, "the command line"]


@pytest.mark.parametrize(
    ("override", "left"),
    [
        ("seed=3,4,5", {"seed": [3, 4, 5], "model.dropout": [0.0, 0.5]}),
        ("seed=3", {"model.dropout": [0.0, 0.5]}),
        ("++seed=3", {"model.dropout": [0.0, 0.5]}),
    ],
)
def test_the_command_line_wins_over_the_file(override: str, left: dict[str, list[Any]]) -> None:
    assert keys(space({"seed": "0, 1", "model.dropout": "0.0, 0.5"}, override)) == left


def test_the_last_of_two_overrides_counts() -> None:
    assert keys(space(None, "seed=1,2", "seed=3,4")) == {"seed": [3, 4]}
    assert keys(space(None, "seed=1,2", "seed=3")) == {}
    assert keys(space(None, "seed=3", "seed=1,2")) == {"seed": [1, 2]}


def test_a_key_that_is_added_goes_by_its_own_name() -> None:
    assert keys(space(None, "+model.width=8,16", "++model.depth=range(2)")) == {
        "model.width": [8, 16],
        "model.depth": [0, 1],
    }


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
    assert [read(one["model.key"]) for one in assigned if "seed" in one] == [held, held]
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
    ("text", "said"),
    [
        ("range(5, 1)", "a range must hold a number, but got range(5, 1)"),
        ("range(1, 5, 0)", "a range must hold a number, but got range(1, 5, 0)"),
        ("range(0, inf)", "a range must have an end, but got range(0, inf)"),
        ("interval(3, 1)", "an interval must go from low to high, but got interval(3, 1)"),
        ("interval(1, 1)", "an interval must go from low to high, but got interval(1, 1)"),
        ("interval(0, inf)", "an interval must go from low to high, but got interval(0, inf)"),
        ("tag(log, interval(0, 1))", "an interval by magnitude must begin above 0, but got tag(log, interval(0, 1))"),
        ("tag(log, interval(-1, 1))", "an interval by magnitude must begin above 0"),
        ("tag(log, range(0, 8, 2))", "a range by magnitude must begin above 0 and have a factor above 1"),
        ("tag(log, range(1, 8))", "a range by magnitude must begin above 0 and have a factor above 1"),
        ("tag(log, choice(1, 2))", "log is for interval and range, but got tag(log, choice(1, 2))"),
        ("tag(lin, interval(0, 1))", "a tag must be log, but got lin in tag(lin, interval(0, 1))"),
        ("glob(*)", "glob(*) must match a choice, but the choices are none, it is no config group"),
        (
            "32",
            "its values must be a,b or choice(a,b), range(low,high,step) or interval(low,high), but got 32; a single",
        ),
        ("[32, 64]", "but got [32, 64]; a single value belongs into the config itself"),
        ("interval(1)", "missing a required argument: 'end'"),
        ("choice(", "no viable alternative"),
        (32, "but got 32; a single value belongs into the config itself"),
        (None, "but got null; a single value belongs into the config itself"),
        ([32, 64], "but got [32,64]; a single value belongs into the config itself"),
        ({"low": 1}, "but got {low:1}; a single value belongs into the config itself"),
    ],
)
def test_values_that_cannot_be_chosen_are_refused_with_file_key_and_rule(text: Any, said: str) -> None:
    (line,) = refusal({"training.batch_size": text})
    assert line.startswith(f"{FILE}: training.batch_size: ")
    assert said in line


def test_a_group_takes_names_only() -> None:
    (line,) = refusal({"optimizer": "glob(zz*)"})
    assert all(option in line for option in options("optimizer"))
    assert refusal(None, "optimizer=range(1,3)") == [
        "the command line: optimizer: its values must be names, but got range(1,3)"
    ]


@pytest.mark.parametrize(
    "override",
    [
        "executor=inline,local",
        "sweep.seed=1,2",
        "tracking.folder=a,b",
        "name=a,b",
        "sweeps=mlp,cnn",
        "+training.resume=a,b",
    ],
)
def test_what_is_the_same_for_all_trials_cannot_be_chosen(override: str) -> None:
    (line,) = refusal(None, override)
    assert line.endswith("it is the same for all trials of a sweep; give it one value")


def test_a_key_of_the_users_own_must_be_in_the_config_before_a_file_chooses_it() -> None:
    (line,) = refusal({"+model.width": "8, 16"})
    assert line.startswith(f"{FILE}: +model.width: ")
    assert "write model: {width: 8}, too" in line


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"when": {"optimizer": {"seed": "1, 2"}}}, "a condition must be written `optimizer=adam: {key: values}`"),
        ({"when": {"optimizer=": {"seed": "1, 2"}}}, "but got 'optimizer='"),
        ({"when": {"seed=range(1,3)": {"model.dropout": "0.1, 0.2"}}}, "but got 'seed=range(1,3)'"),
        ({"when": {"optimizer=adam": "0.1, 0.2"}}, "but got 'optimizer=adam'"),
        ({"when": "optimizer=adam"}, "but got 'optimizer=adam'"),
        (
            {"when": {"optimizer=adma": {"seed": "1, 2"}}},
            "adam, adamw, nadam, rmsprop, sgd, but got adma (did you mean",
        ),
        (
            {"optimizer": "adam, sgd", "when": {"optimizer=adadelta": {"seed": "1, 2"}}},
            "seed: its condition optimizer=adadelta must name one of adam, sgd, but got adadelta",
        ),
        (
            {"model.key": "true, false", "when": {"model.key=yes": {"seed": "1, 2"}}},
            "seed: its condition model.key=yes must name one of true, false, but got yes",
        ),
        (
            {"when": {"model.dropout=0.1": {"seed": "1, 2"}}},
            "must name a config group, or a key that the space chooses without a condition",
        ),
        (
            {"seed": "range(3)", "when": {"seed=1": {"model.dropout": "0.1, 0.2"}}},
            "must name a key with choices, but seed has numbers; write choice(...) there",
        ),
        (
            {"model.key": "true, false", "when": {"model.key=true": {"optimizer": "adam, sgd"}}},
            "optimizer: its condition model.key=true must name a config group, since it decides on one",
        ),
        (
            {
                "model": "mlp, cnn",
                "when": {"model=cnn": {"optimizer": "adam, sgd"}, "optimizer=adam": {"seed": "1, 2"}},
            },
            "seed: its condition optimizer=adam must name a key that has no condition itself",
        ),
        (
            {"optimizer": "adam, sgd", "seed": "1, 2", "when": {"optimizer=adam": {"seed": "3, 4"}}},
            "exclude each other, or outside of all, but got optimizer=adam and none",
        ),
        (
            {
                "optimizer": "adam, sgd",
                "when": {"optimizer=adam,sgd": {"seed": "1, 2"}, "optimizer=sgd": {"seed": "3, 4"}},
            },
            "exclude each other, or outside of all, but got optimizer=sgd and optimizer=adam,sgd",
        ),
        (
            {
                "optimizer": "adam, sgd",
                "model": "mlp, cnn",
                "when": {"optimizer=adam": {"seed": "1, 2"}, "model=cnn": {"seed": "3, 4"}},
            },
            "exclude each other, or outside of all, but got model=cnn and optimizer=adam",
        ),
        (
            {"when": {"optimizer=adam": {"seed": "1, 2"}, "model=mlp": {"seed": "3, 4"}}},
            "exclude each other, or outside of all, but got model=mlp and optimizer=adam",
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


def test_all_faults_are_listed_at_once() -> None:
    section = {
        "training.epochs": "range(5, 1)",
        "optimizer.learning_rate": "tag(log, interval(0, 1))",
        "model.dropout": "0.1",
        "when": {"optimizer=adma": {"seed": "1, 2"}, "nonsense": {}},
    }
    found = refusal(section, "tracking=mlflow,off", "seed=interval(2,1)")
    assert sorted(line.split(": ")[1] for line in found if not line.startswith("the command line")) == [
        "a condition must be written `optimizer=adam",
        "model.dropout",
        "optimizer.learning_rate",
        "training.epochs",
    ]
    assert [line.split(": ")[1] for line in found if line.startswith("the command line")] == ["tracking", "seed"]


def test_an_interval_is_whole_where_the_config_has_an_integer() -> None:
    config = {"seed": 0, "model.dropout": 0.0, "training.epochs": 12, "training.patience": None}
    section = {
        "seed": "tag(log, interval(1, 100))",
        "model.dropout": "interval(0, 1)",
        "training.epochs": "interval(0.5, 3)",
        "training.patience": "interval(1, 3)",
    }
    typed = {parameter.key: parameter.values for parameter in space(section).typed(config.get).parameters}
    assert typed == {
        "seed": Numbers(1, 100, log=True, whole=True),
        "model.dropout": Numbers(0.0, 1.0),
        "training.epochs": Numbers(0.5, 3.0),
        "training.patience": Numbers(1.0, 3.0),
    }
    seed = typed["seed"]
    assert isinstance(seed, Numbers)
    assert isinstance(seed.low, int)


def test_a_choice_is_a_token_until_it_is_read() -> None:
    assert only("null, [128, 64], relu").values == Choices(("null", "[128,64]", "relu"))
    for value in (3, 0.1, 1e-05, 1e16, "null", "[128,64]", "'a b'"):
        assert read(written(value)) == (read(value) if isinstance(value, str) else value)
