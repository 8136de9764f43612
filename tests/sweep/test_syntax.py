import math
from typing import Any

import pytest
from spaces import FILE, keys, only, refusal, space, values

from mnist_exp.config.compose import choices_of
from mnist_exp.errors import ConfigError
from mnist_exp.sweep.space import Numbers


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
    with pytest.raises(
        ConfigError, match=rf"{FILE}: seed must have values that can be counted, .* is an interval; write range"
    ):
        next(space({"seed": text}).combinations())


def test_shuffled_values_are_all_there_in_an_order_that_stays() -> None:
    assert sorted(values("shuffle(range(20))")) == [*range(20)]
    assert values("shuffle(range(20))") == values("shuffle(range(20))") != [*range(20)]
    assert values("shuffle(range(20))") != values("shuffle(range(20))", "seed")
    assert sorted(values("shuffle(a, b, c)")) == ["a", "b", "c"]
    assert set(values("shuffle(range(0.8, 1.0, 0.05))")) == {0.8, 0.85, 0.9, 0.95}


def test_a_glob_takes_the_choices_of_a_group_that_match() -> None:
    assert values("glob(*)", "optimizer") == choices_of("optimizer")
    assert values("glob(ada*)", "optimizer") == ["adadelta", "adam", "adamw"]
    assert values("glob([ada*, sgd], exclude=adamw)", "optimizer") == ["adadelta", "adam", "sgd"]


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("range(5, 1)", "must be a range that holds a number, but got 'range(5, 1)'"),
        ("range(1, 5, 0)", "must be a range that holds a number, but got 'range(1, 5, 0)'"),
        ("range(0, inf)", "must be a range with an end, but got 'range(0, inf)'"),
        ("interval(3, 1)", "must be an interval from low to high, but got 'interval(3, 1)'"),
        ("interval(1, 1)", "must be an interval from low to high, but got 'interval(1, 1)'"),
        ("interval(0, inf)", "must be an interval from low to high, but got 'interval(0, inf)'"),
        (
            "tag(log, interval(0, 1))",
            "must be an interval that begins above 0, because of its tag log, but got 'tag(log, interval(0, 1))'",
        ),
        ("tag(log, interval(-1, 1))", "must be an interval that begins above 0"),
        ("tag(log, range(0, 8, 2))", "must be a range that begins above 0 and has a factor above 1"),
        ("tag(log, range(1, 8))", "must be a range that begins above 0 and has a factor above 1"),
        (
            "tag(log, choice(1, 2))",
            "must be an interval or a range to be tagged with log, but got 'tag(log, choice(1, 2))'",
        ),
        ("tag(lin, interval(0, 1))", "must have no tag but log and 'best=VALUE', but got 'lin'"),
        ("tag('best=2', interval(0, 1))", "must name one of its values as best, but got '2'"),
        ("tag('best=gelu', choice(relu, tanh))", "must name one of its values as best, but got 'gelu'"),
        ("tag('best=', interval(0, 1))", "must name one of its values as best, but got ''"),
        ("tag('best=0.1', 'best=0.2', interval(0, 1))", "must name one of its values as best, but got '0.1, 0.2'"),
        ("tag('best=low', interval(0, 1))", "must name one of its values as best, but got 'low'"),
        ("glob(*)", "must match a choice (none, it is not a config group), but got 'glob(*)'"),
        (
            "32",
            "must be a,b or choice(a,b), range(low,high,step) or interval(low,high), but got 32; a single",
        ),
        ("[32, 64]", "but got [32, 64]; a single value belongs into the config itself"),
        ("interval(1)", "missing a required argument: 'end'"),
        ("choice(", "no viable alternative"),
        (32, "but got 32; a single value belongs into the config itself"),
        (None, "but got null; a single value belongs into the config itself"),
        ([32, 64], "but got [32, 64]; a single value belongs into the config itself"),
        ({"low": 1}, "but got {'low': 1}; a single value belongs into the config itself"),
    ],
)
def test_values_that_cannot_be_chosen_are_refused_with_file_key_and_rule(text: Any, said: str) -> None:
    (line,) = refusal({"training.batch_size": text})
    assert line.startswith(f"{FILE}: training.batch_size must ")
    assert said in line


def test_a_group_takes_names_only() -> None:
    (line,) = refusal({"optimizer": "glob(zz*)"})
    assert all(option in line for option in choices_of("optimizer"))
    assert refusal(None, "optimizer=range(1,3)") == ["the command line: optimizer must be names, but got 'range(1,3)'"]


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
    assert line.endswith(" is the same for all trials of a sweep; give it one value")


def test_a_key_of_the_users_own_must_be_in_the_config_before_a_file_chooses_it() -> None:
    (line,) = refusal({"+model.width": "8, 16"})
    assert line.startswith(f"{FILE}: +model.width must be in the config")
    assert "write model: {width: 8}, too" in line


def test_all_faults_are_listed_at_once() -> None:
    section = {
        "training.epochs": "range(5, 1)",
        "optimizer.learning_rate": "tag(log, interval(0, 1))",
        "model.dropout": "0.1",
        "when": {"optimizer=adma": {"seed": "1, 2"}, "nonsense": {}},
    }
    found = refusal(section, "tracking=mlflow,off", "seed=interval(2,1)")
    places = [line.partition(" must ")[0].partition(" is ")[0] for line in found]
    assert sorted(places) == [
        *(f"{FILE}: {key}" for key in ("model.dropout", "optimizer.learning_rate", "training.epochs")),
        f"{FILE}: when",
        "the command line: seed",
        "the command line: tracking",
    ]


def test_a_list_is_no_choice_of_a_group() -> None:
    assert refusal(None, "optimizer=[adam,sgd],nadam") == [
        "the command line: optimizer must be names, but got '[adam,sgd],nadam'; write them without brackets"
    ]


def test_a_choice_of_a_group_is_a_name_also_where_it_reads_as_a_number() -> None:
    assert values("1, '2', x", "experiment") == ["1", "2", "x"]
