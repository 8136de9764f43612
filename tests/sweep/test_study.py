import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from mnist_exp.config.compose import ROOT, Composed, compose, parse_overrides
from mnist_exp.config.recorded import ExecutionWhitelist
from mnist_exp.errors import ConfigError, DataError
from mnist_exp.sweep.plan import total
from mnist_exp.sweep.study import Study, check_settings, define_study, resume_study

STUDIES = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml"))
GRID = ["optimizer=adam,adadelta"]
INTERVAL = ["model.dropout=interval(0,0.5)"]
CONDITION = {"when": {"optimizer=adadelta": {"optimizer.learning_rate": "interval(0.1, 1.0)"}}}


@dataclass
class Recorded:
    """What the store gives back of a sweep."""

    store = SimpleNamespace(whitelist=ExecutionWhitelist())

    record: dict[str, Any]
    changes: Sequence[dict[str, Any]] = ()


LOSS = ["sweep.objective=val/loss", "sweep.direction=min"]
CATEGORICAL = ["training.loss=categorical_crossentropy"]


def parent(overrides: list[str], space: dict[str, Any] | None = None) -> Composed:
    """What Hydra hands to a sweep: the config of the overrides that are no sweeps, and all overrides."""
    parsed = parse_overrides(overrides)
    found = compose([text for text, one in zip(overrides, parsed, strict=True) if not one.is_sweep_override()])
    if space:
        OmegaConf.update(found.config, "sweep.space", space, merge=False)
    return replace(found, overrides=tuple(overrides))


def defined(*overrides: str, space: dict[str, Any] | None = None) -> Study:
    return define_study(parent([*overrides], space))


def refusal(*overrides: str, space: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        defined(*overrides, space=space)
    return str(refused.value)


def recorded(study: Study, changes: Sequence[dict[str, Any]] = ()) -> Recorded:
    return Recorded(json.loads(json.dumps(study.to_record())), changes)


def again(study: Study, *overrides: str, changes: Sequence[dict[str, Any]] = ()) -> Study:
    """The study as `sweep.resume=latest` finds it, with these overrides beside it. changes: before."""
    given = ["sweep.resume=latest", *overrides]
    return resume_study(recorded(study, changes), parent(given))[0]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def study() -> Study:
    return defined("sweep.max_trials=5", "training.epochs=2", *INTERVAL)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A data set of the user's own."""
    return photographed(tmp_path / "photos.npz", seed=0)


def photographed(path: Path, seed: int) -> Path:
    images = np.random.default_rng(seed).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(path, x_train=images, y_train=np.arange(60) % 2)
    return path


@pytest.mark.parametrize(
    ("overrides", "algorithm"),
    [
        (GRID, "grid"),
        ([*GRID, "seed=range(3)", "training.batch_size=tag(log,range(16,65,2))"], "grid"),
        ([*GRID, "sweep.max_trials=1"], "tpe"),
        ([*GRID, "sweep.sampler=random"], "random"),
        ([*INTERVAL, "sweep.max_trials=3"], "tpe"),
        ([*INTERVAL, "sweep.sampler=random", "sweep.max_trials=3"], "random"),
        ([*INTERVAL, "sweep.pruner=hyperband"], "hyperband"),
        ([*INTERVAL, "sweep.pruner=hyperband", "sweep.sampler=random"], "hyperband"),
        ([*INTERVAL, "sweep.pruner=median", "sweep.max_trials=3"], "tpe"),
    ],
)
def test_auto_is_a_grid_where_nothing_is_drawn_and_nothing_limits_it(overrides: list[str], algorithm: str) -> None:
    assert defined(*overrides).algorithm == algorithm


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["sweep.algorithm=auto", *GRID], GRID),
        (["sweep.algorithm=grid", *GRID, "sweep.max_trials=1"], ["sweep.sampler=grid", *GRID, "sweep.max_trials=1"]),
        (["sweep.algorithm=random", *GRID], ["sweep.sampler=random", *GRID]),
        (["sweep.algorithm=tpe", *GRID], ["sweep.sampler=tpe", *GRID]),
        (["sweep.algorithm=hyperband", *INTERVAL], ["sweep.pruner=hyperband", *INTERVAL]),
        (["sweep.pruning=median", *GRID], ["sweep.pruner=median", *GRID]),
        (["sweep.pruning=off", *GRID], ["sweep.pruner=off", *GRID]),
        (
            ["sweep.algorithm=random", "sweep.pruning=median", *GRID],
            ["sweep.sampler=random", "sweep.pruner=median", *GRID],
        ),
    ],
)
def test_the_old_keys_of_sampler_and_pruner_mean_the_same(old: list[str], new: list[str]) -> None:
    before, now = defined(*old), defined(*new)
    assert (before.algorithm, before.settings.hyperband, before.settings.median) == (
        now.algorithm,
        now.settings.hyperband,
        now.settings.median,
    )
    assert again(before).algorithm == before.algorithm


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_there_is_can_be_begun(name: str) -> None:
    study = defined(f"sweeps={name}", "dataset=digits")
    assert study.name == name
    assert f"-m sweeps={name}" in (ROOT / "sweeps" / f"{name}.yaml").read_text()


def test_a_study_goes_by_its_name_its_file_or_sweep() -> None:
    assert defined(*GRID).name == "sweep"
    assert defined(*GRID, "sweep.name=mine", "sweeps=smoke").name == "mine"


def test_a_plain_override_fixes_a_key_of_the_study_and_decides_its_conditions() -> None:
    whole = defined("sweeps=optimizers")
    assert "optimizer" in {parameter.key for parameter in whole.space.parameters}
    fixed = defined("sweeps=optimizers", "optimizer=adadelta")
    assert [(p.name, p.source) for p in fixed.space.parameters] == [
        ("optimizer.learning_rate", "sweeps/optimizers.yaml")
    ]
    assert {base.choices["optimizer"] for base in fixed.configs.bases.values()} == {"adadelta"}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["tracking=off", *GRID], "a sweep needs the tracking store, which is its only record, but got 'tracking=off'"),
        ([], "a sweep needs something to choose; give several values, such as optimizer=adam,adadelta, or sweeps=mlp"),
        (["optimizer=adam"], "a sweep needs something to choose"),
        (["sweep.sampler=grid", *INTERVAL], "the command line: model.dropout must have values that can be counted"),
        (["sweep.sampler=grid", "sweep.max_trials=5", *INTERVAL], "give sweep.sampler=tpe and sweep.max_trials=50"),
        (INTERVAL, "sweep.max_trials must be given for sweep.sampler=tpe over intervals, which has no end of its own"),
        (["sweep.sampler=random", *INTERVAL], "for sweep.sampler=random over intervals, which has no end of its own"),
        (["sweep.objective=test/accuracy", *GRID], "sweep.objective must not be a metric of the test set"),
        (["sweep.objective=val/loss", *GRID], "sweep.direction must be min for val/loss, but got 'max'"),
        (["sweep.direction=min", *GRID], "sweep.direction must be max for val/accuracy, but got 'min'"),
        (
            ["sweep.objective=val/macro_f1", "sweep.pruner=median", *GRID],
            "sweep.objective must be known after every epoch with sweep.pruner=median, as val/accuracy",
        ),
        (
            ["sweep.objective=val/macro_f1", "sweep.pruning=median", *GRID],
            "sweep.objective must be known after every epoch with sweep.pruner=median, as val/accuracy",
        ),
        (
            ["sweep.pruner=hyperband", "sweep.sampler=tpe", *INTERVAL],
            "sweep.sampler must be auto or random with Hyperband, which draws its configurations at random, but got",
        ),
        (["sweep.pruner=hyperband", "sweep.sampler=grid", *GRID], "sweep.sampler must be auto or random with"),
        (["sweep.algorithm=hyperband", "sweep.pruner=median", *INTERVAL], "sweep.pruner must be off or hyperband with"),
        (
            ["sweep.algorithm=hyperband", "sweep.pruning=median", *INTERVAL],
            "sweep.pruning must be off with sweep.algorithm=hyperband, but got 'median'; a sweep has one pruner",
        ),
        (
            [*LOSS, *CATEGORICAL, "training.label_smoothing=0.0,0.1"],
            "sweep.objective must be the same loss in all trials, but they differ in training.label_smoothing, which "
            "val/loss includes; give sweep.objective=val/cross_entropy, which leaves smoothing out",
        ),
        ([*LOSS, "experiment=mnist_best,dense_100", "dataset=digits"], "but they differ in training.label_smoothing"),
        (["sweep.pruner=hyperband", "sweep.algorithm=tpe", *INTERVAL], "sweep.algorithm must be auto or random with"),
        (
            ["sweep.sampler=tpe", "sweep.algorithm=random", *GRID],
            "sweep.algorithm must be null beside sweep.sampler=tpe, which replaces it, but got 'random'",
        ),
        (
            ["sweep.pruner=median", "sweep.pruning=off", *GRID],
            "sweep.pruning must be null beside sweep.pruner=median, which replaces it, but got 'off'",
        ),
        (["sweep.max_trials=0", *GRID], "sweep.max_trials must be at least 1, but got 0"),
        (["executor.workers=-1", *GRID], "executor.workers must be at least 1, but got -1"),
        (["+sweep.maxtrials=3", *GRID], "sweep.maxtrials does not exist; did you mean sweep.max_trials?"),
        (["+executor.worker=3", *GRID], "executor.worker does not exist; did you mean executor.workers?"),
        (["executor=inline,local"], "the command line: executor is the same for all trials of a sweep"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_run_is_refused(overrides: list[str], said: str) -> None:
    assert said in refusal(*overrides)
    assert "\n" not in refusal(*overrides)


def test_a_grid_is_refused_an_interval_that_only_a_later_choice_brings() -> None:
    assert "optimizer.learning_rate must have values that can be counted" in refusal(
        "sweep.sampler=grid", *GRID, space=CONDITION
    )
    assert "no end of its own" in refusal(*GRID, space=CONDITION)


def test_smoothing_is_swept_for_the_cross_entropy() -> None:
    smoothing = "training.label_smoothing=0.0,0.1"
    study = defined("sweep.objective=val/cross_entropy", "sweep.direction=min", *CATEGORICAL, smoothing)
    assert study.objective.metric == "val/cross_entropy"
    check_settings(parent(["sweep.objective=val/cross_entropy", "sweep.direction=min", "sweep.pruner=median"]))


def test_a_sweep_keeps_the_definitions_that_it_began_with() -> None:
    record = defined(*GRID).to_record()
    assert record["definitions"] == Study.from_record(record, ExecutionWhitelist()).definitions == 2
    before = {key: value for key, value in record.items() if key != "definitions"}  # as older versions wrote it
    assert Study.from_record(before, ExecutionWhitelist()).definitions == 1
    assert Study.from_record(before, ExecutionWhitelist()).to_record()["definitions"] == 1


def test_loss_is_made_small() -> None:
    check_settings(parent(["sweep.objective=val/loss", "sweep.direction=min", "sweep.pruner=median"]))


def test_all_that_is_wrong_with_sweep_executor_and_tracking_is_listed_at_once() -> None:
    found = refusal("sweep.factor=1", "executor.kind=cloud", "tracking=off", "tracking.folder=null", *GRID).splitlines()
    assert [line.split()[0] for line in found] == ["sweep.factor", "executor.kind", "tracking.folder", "a"]


def test_all_that_is_wrong_with_a_space_is_listed_at_once_with_file_and_key() -> None:
    space = {
        "training.epochs": "range(5, 1)",
        "training.epohcs": "1, 2",
        "training.batch_size": "32, many",
        "when": {
            "optimizer=adadelta": {"optimizer.learning_rate": "tag(log, interval(0, 1))", "optimizer.rho": "0, 2"}
        },
    }
    found = refusal("optimizer=adam,adadelta,sdg", "seed=-1,0", space=space).splitlines()
    assert [line.partition(", but")[0].partition("; did")[0].partition(", because")[0] for line in found] == [
        "sweep.space: training.epochs must be a range that holds a number",
        "sweep.space: optimizer.learning_rate must be an interval that begins above 0",
        "optimizer=sdg: optimizer must be one of adadelta, adam, adamw, custom, nadam, rmsprop, sgd",
        "sweep.space: training.epohcs does not exist",
        "the command line: seed must be at least 0",
        "sweep.space: training.batch_size must be an integer",
        "sweep.space: optimizer.rho must be at most 1",
    ]


def test_the_data_is_looked_at_before_the_first_trial(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        defined("dataset=npz", f"dataset.path={tmp_path / 'none.npz'}", *GRID)


def test_data_sets_can_be_chosen(tmp_path: Path, photos: Path) -> None:
    scans = photographed(tmp_path / "scans.npz", seed=1)
    study = defined("dataset=npz", f"dataset.path={photos},{scans}")
    assert study.digest == defined("dataset=npz", f"dataset.path={photos}", *GRID).digest
    assert again(study).digest == study.digest


@pytest.mark.parametrize(
    ("overrides", "space"),
    [
        (["sweep.max_trials=5", *INTERVAL, "training.epochs=interval(1,9)"], {}),
        (["model=mlp,cnn", "seed=range(2)", "training.batch_size=tag(log,range(16,65,2))"], {}),
        (["model.widths=[],[8]", "training.early_stopping_patience=null,3", "model.batch_norm=true,false"], {}),
        (["sweep.max_trials=5", "sweep.timeout=60", "sweep.name=mine", *GRID], CONDITION),
    ],
)
def test_a_record_gives_back_the_whole_study(overrides: list[str], space: dict[str, Any]) -> None:
    study = defined(*overrides, space=space)
    thawed = Study.from_record(recorded(study).record, ExecutionWhitelist())
    assert thawed.to_record() == study.to_record()
    assert repr(thawed.space) == repr(study.space)  # 1 and 1.0 apart
    assert (thawed.name, thawed.algorithm, thawed.digest) == (study.name, study.algorithm, study.digest)
    assert (thawed.settings.max_trials, thawed.settings.timeout) == (study.settings.max_trials, study.settings.timeout)
    assert thawed.overrides == tuple(overrides)
    if study.space.finite:
        values = [*study.space.combinations()]
        assert [*thawed.space.combinations()] == values
        assert thawed.configs.of(values[-1]) == study.configs.of(values[-1])


def test_a_sweep_is_resumed_by_its_name_alone_or_by_its_own_command_line(study: Study) -> None:
    for overrides in [(), study.overrides, study.overrides[::-1]]:
        assert again(study, *overrides).to_record() == study.to_record()


@pytest.mark.parametrize(
    "override", ["seed=1", "training.epochs=3", "model.dropout=0.1,0.2", "optimizer=sgd", "sweeps=mlp"]
)
def test_a_resumed_sweep_keeps_what_it_began_with(study: Study, override: str) -> None:
    with pytest.raises(ConfigError) as refused:
        again(study, *study.overrides, override, "executor=local", "sweep.max_trials=9")
    said = str(refused.value)
    assert said.startswith(f"a resumed sweep keeps its recorded config ({' '.join(study.overrides)}), but got ")
    assert f"but got '{override}'; give only sweep.max_trials, " in said


def test_every_difference_is_named(study: Study) -> None:
    with pytest.raises(ConfigError, match=r"but got 'seed=1 training\.epochs=3';"):
        again(study, "training.epochs=3", "seed=1")


def test_a_resumed_sweep_may_go_on_longer_elsewhere(study: Study) -> None:
    given = ["sweep.max_trials=9", "sweep.timeout=60", "sweep.trial_timeout=5", "sweep.save_best=best.yaml"]
    longer = again(study, *given, "executor=local", "executor.workers=2", "tracking.folder=there")
    settings = longer.settings
    assert (settings.max_trials, settings.timeout, settings.trial_timeout, settings.save_best) == (
        9,
        60,
        5,
        "best.yaml",
    )
    assert longer.to_record() | {"settings": None} == study.to_record() | {"settings": None}
    assert again(longer).settings == settings


def test_a_key_that_is_repeated_as_it_was_typed_last_undoes_nothing() -> None:
    study = defined(*INTERVAL, "sweep.max_trials=4")
    grown = replace(study, settings=study.settings.model_copy(update={"max_trials": 9}))  # as somebody asked
    assert again(grown, *study.overrides).settings.max_trials == 9
    assert again(grown, *INTERVAL, "sweep.max_trials=5").settings.max_trials == 5
    between = [{"overrides": ["sweep.max_trials=7"]}, {"overrides": []}]
    assert again(grown, "sweep.max_trials=7", changes=between).settings.max_trials == 9
    assert again(grown, *study.overrides, changes=between).settings.max_trials == 4


def test_a_resumed_sweep_needs_an_end_as_well(study: Study) -> None:
    with pytest.raises(ConfigError, match="over intervals, which has no end of its own"):
        again(study, "sweep.max_trials=null")
    assert again(defined(*GRID), "sweep.max_trials=null").settings.max_trials is None


def test_a_resumed_sweep_needs_the_data_it_began_with(photos: Path) -> None:
    study = defined("dataset=npz", f"dataset.path={photos}", *GRID)
    assert again(study).digest == study.digest
    photographed(photos, seed=1)
    with pytest.raises(ConfigError) as refused:
        again(study)
    assert f"must have the digest {study.digest}, as when the sweep began, but got " in str(refused.value)
    assert str(refused.value).endswith("restore that data, or start a new sweep")


def test_the_number_of_trials_is_known_where_it_has_an_end() -> None:
    assert total(defined(*GRID, "seed=1,2,3")) == 6
    assert total(defined(*GRID, "sweep.max_trials=9")) == 2
    assert total(defined(*INTERVAL, "sweep.max_trials=9")) == 9


@pytest.mark.parametrize(
    ("overrides", "pruner", "why"),
    [
        ([*GRID, "training.epochs=9"], "off", "a grid compares all of its trials"),
        ([*INTERVAL, "sweep.max_trials=9", "training.epochs=9"], "asha", "the best nets with the fewest"),
        ([*INTERVAL, "sweep.max_epochs=90", "training.epochs=9", "sweep.sampler=random"], "asha", "the best nets"),
        ([*INTERVAL, "sweep.max_trials=9", "training.epochs=2"], "off", "2 epochs are too short"),
        (
            [*INTERVAL, "sweep.max_trials=9", "training.epochs=9", "sweep.objective=val/macro_f1"],
            "off",
            "val/macro_f1 is known at the end of a training only",
        ),
        ([*INTERVAL, "sweep.max_trials=9", "training.epochs=9", "sweep.pruner=median"], "median", ""),
        ([*INTERVAL, "sweep.max_trials=9", "training.epochs=9", "sweep.pruning=off"], "off", ""),
        ([*INTERVAL, "sweep.algorithm=hyperband", "training.epochs=9"], "off", ""),
    ],
)
def test_a_pruner_that_is_left_open_is_chosen_and_the_choice_is_recorded(
    overrides: list[str], pruner: str, why: str
) -> None:
    study = defined(*overrides)
    assert study.settings.pruner == pruner
    assert why in study.why
    assert bool(why) is bool(study.why)
    assert again(study).settings.pruner == pruner
