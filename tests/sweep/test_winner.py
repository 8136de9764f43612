import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import store_in, trials
from light_trials import study_of
from omegaconf import OmegaConf

from mnist_exp import cli
from mnist_exp.config.objective import Objective
from mnist_exp.sweep.space import format_value
from mnist_exp.sweep.winner import experiment_file, rank
from mnist_exp.tracking.sweep_run import Attempt


def trial(number: int, score: float | None, values: dict[str, Any] | None = None) -> Attempt:
    outcome: Any = "failed" if score is None else "complete"
    return Attempt(f"run{number}", number, values or {}, None, "FINISHED", outcome, score)


@pytest.mark.parametrize(("direction", "order"), [("max", [3, 1, 4, 0]), ("min", [0, 1, 4, 3])])
def test_the_best_trial_comes_first_and_of_equal_ones_the_first(direction, order) -> None:
    trials = [trial(number, score) for number, score in enumerate((0.1, 0.5, None, 0.9, 0.5))]
    assert [one.number for one in rank(trials, Objective("val/accuracy", direction))] == order


ODD = [
    "my data (1).npz",
    "it's",
    'a "b"',
    "x=y",
    "{a}",
    "a,b",
    "Ankle boot",
    "Grün",
    "123",
    "1e-3",
    "null",
    "true",
    " a ",
    "#c: d",
]


@pytest.mark.parametrize("value", ODD)
def test_an_experiment_file_holds_the_text_that_was_chosen(value: str) -> None:
    study = study_of("grid", "model.dropout=0.0", "seed=0", f"dataset.name=plain,{format_value(value)}")
    _, values = study.space.combinations()
    cfg, choices = study.configs.of(values)
    text = experiment_file(study, cfg, choices, trial(1, 0.5, values))
    assert OmegaConf.create(text).dataset.name == value


def test_an_experiment_file_holds_null_lists_and_choices(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "net_with_a_title.py").write_text("def net(image_shape, classes, **keys): ...")
    monkeypatch.syspath_prepend(tmp_path)
    given = ["model=custom", "model._target_=net_with_a_title.net"]
    chosen = ["optimizer=adam,sgd", "+model.title=x,null", "+model.names=[],['a b',null,'1',[2.0,true]]"]
    study = study_of("auto", *given, *chosen)
    values = {"optimizer": "sgd", "model.title": None, "model.names": ["a b", None, "1", [2.0, True]]}
    text = experiment_file(study, *study.configs.of(values), trial(1, 0.5, values))
    assert text.startswith("# @package _global_\n# Trial 1 of the sweep study: val/accuracy 0.5000.\n")
    found: Any = OmegaConf.to_container(OmegaConf.create(text))
    assert found["defaults"] == [{"override /optimizer": "sgd"}, {"override /model": "custom"}]
    assert found["model"]["title"] is None
    assert repr(found["model"]["names"]) == "['a b', None, '1', [2.0, True]]"


def test_files_of_any_name_are_swept_to_a_winner_that_can_be_trained_again(tmp_path: Path, monkeypatch) -> None:
    names = ["my data (1).npz", 'it\'s {a=b}, "c" Grün.npz']
    for seed, name in enumerate(names):
        images = np.random.default_rng(seed).integers(0, 256, (60, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / name, x_train=images, y_train=np.arange(60) % 2)
    monkeypatch.chdir(tmp_path)
    chosen = ",".join(map(format_value, names))
    sweep = ["dataset=npz", f"dataset.path={chosen}", "training=smoke", "model.widths=[8]", "sweep.save_best=best.yaml"]
    monkeypatch.setattr(sys, "argv", ["mnist_exp", "-m", *sweep])
    cli.main()
    store = store_in(tmp_path)
    (parent,) = store.runs("tags.kind = 'sweep'")
    assert parent.info.status == "FINISHED"
    assert {run.data.params["dataset.path"] for run in trials(store)} == set(names)
    best = store.client.get_run(parent.data.tags["best_run"])
    assert OmegaConf.load("best.yaml").dataset.path == best.data.params["dataset.path"]
