from collections.abc import Sequence

import pytest

from mnist_exp.config.check import check
from mnist_exp.config.compose import compose
from mnist_exp.config.resume import OF_RUNS, OF_SWEEPS, check_overrides, check_single, resume_run, wanted_run
from mnist_exp.errors import ConfigError

BEGAN = ("seed=3", "model.dropout=0.1,0.2", "sweep.max_trials=4")


@pytest.mark.parametrize(
    ("sections", "given"),
    [
        (OF_RUNS, ["training.resume=mine", "training.epochs=9", "tracking.folder=there"]),
        (OF_RUNS, ["++training.epochs=9", "tracking=mlflow"]),
        (OF_SWEEPS, ["sweep.resume=mine", "sweep.max_trials=9", "sweep.timeout=1", "sweep.trial_timeout=1"]),
        (OF_SWEEPS, ["sweep.save_best=best.yaml", "executor=local", "executor.workers=2", "tracking.folder=there"]),
    ],
)
def test_the_keys_that_may_change_are_those_with_the_flag(sections: Sequence[str], given: list[str]) -> None:
    assert check_overrides(given, sections, "it") == {text.lstrip("+").partition("=")[0] for text in given}


@pytest.mark.parametrize(
    ("sections", "given"),
    [
        (OF_RUNS, "seed=1"),
        (OF_RUNS, "+model.width=3"),
        (OF_RUNS, "sweep.max_trials=3"),
        (OF_SWEEPS, "training.epochs=3"),
        (OF_SWEEPS, "sweep.seed=1"),
    ],
)
def test_any_other_key_is_refused(sections: Sequence[str], given: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_overrides(["tracking.folder=there", given], sections, "it")
    (problem,) = refused.value.problems
    assert (problem.key, problem.value) == ("it", given)


def test_what_it_began_with_may_be_repeated_but_not_changed() -> None:
    assert check_overrides(BEGAN, OF_SWEEPS, "it", BEGAN) == {"sweep.max_trials"}
    with pytest.raises(ConfigError) as refused:
        check_overrides(["seed=4", "model.dropout=0.1,0.2"], OF_SWEEPS, "it", BEGAN)
    assert refused.value.problems[0].value == "seed=4"


@pytest.mark.parametrize("text", ["latest", "mine", "12345678", "1234e567"])
def test_a_run_is_named_as_it_was_typed(text: str) -> None:
    assert wanted_run(compose([f"training.resume={text}"])) == text
    assert wanted_run(compose([])) is None


def test_a_resumed_run_has_its_recorded_config_and_what_was_given() -> None:
    recorded = check(compose(["model=cnn", "training.epochs=3", "seed=7"])).recorded
    now = compose(["training.resume=mine", "training.epochs=9", "tracking.folder=there"])
    config = resume_run(now, recorded, {"model": "cnn"}, "abc123")
    assert (config.values["training"]["epochs"], config.values["training"]["resume"], config.seed) == (9, "abc123", 7)
    assert config.values["tracking"]["folder"] == "there"
    assert config.choices == {"model": "cnn"}
    unchanged = resume_run(compose(["training.resume=mine"]), recorded, {}, "abc123")
    assert unchanged.values["training"]["epochs"] == 3


@pytest.mark.parametrize("override", ["sweep.max_trials=3", "executor=local", "sweeps=mlp"])
def test_keys_of_sweeps_are_refused_without_the_flag(override: str) -> None:
    check_single(compose(["seed=1"]))
    with pytest.raises(ConfigError, match="add -m: python -m mnist_exp -m"):
        check_single(compose([override]))
