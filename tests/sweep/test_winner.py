from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import store_in, trials
from light_trials import study_of
from omegaconf import OmegaConf

from mnist_exp.config.objective import Objective
from mnist_exp.config.run_config import format_value
from mnist_exp.sweep.winner import rank
from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.stored_run import TrialRun, fetch_run


def trial(number: int, score: float | None, values: dict[str, Any] | None = None) -> TrialRun:
    outcome: Any = "failed" if score is None else "complete"
    return TrialRun(f"run{number}", number, values or {}, None, "FINISHED", outcome, score)


@pytest.mark.parametrize(("direction", "order"), [("max", [3, 1, 4, 0]), ("min", [0, 1, 4, 3])])
def test_the_best_trial_comes_first_and_of_equal_ones_the_first(direction, order) -> None:
    trials = [trial(number, score) for number, score in enumerate((0.1, 0.5, None, 0.9, 0.5))]
    assert [one.number for one in rank(trials, Objective("val/accuracy", direction))] == order


def test_null_and_lists_of_a_winner_are_in_its_experiment_file(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "net_with_a_title.py").write_text("def net(image_shape, classes, **keys): ...")
    monkeypatch.syspath_prepend(tmp_path)
    given = ["model=custom", "model._target_=net_with_a_title.net", "optimizer=adam,sgd"]
    study = study_of("auto", *given, "+model.title=x,null", "+model.names=[],['a b',null,'1',[2.0,true]]")
    values = {"optimizer": "sgd", "model.title": None, "model.names": ["a b", None, "1", [2.0, True]]}
    found: Any = OmegaConf.to_container(OmegaConf.create(study.configs.of(values).experiment_file()))
    assert {"override /optimizer": "sgd"} in found["defaults"]
    assert found["model"]["title"] is None
    assert repr(found["model"]["names"]) == "['a b', None, '1', [2.0, True]]"


def test_files_of_any_name_are_swept_to_a_winner_that_can_be_trained_again(home: Path, run_main) -> None:
    names = ["my data (1).npz", 'it\'s {a=b}, "c" Grün.npz']
    for seed, name in enumerate(names):
        images = np.random.default_rng(seed).integers(0, 256, (60, 8, 8), dtype=np.uint8)
        np.savez(home / name, x_train=images, y_train=np.arange(60) % 2)
    chosen = ",".join(map(format_value, names))
    sweep = ["dataset=npz", f"dataset.path={chosen}", "training=smoke", "model.widths=[8]", "sweep.save_best=best.yaml"]
    status, _, err = run_main("-m", *sweep)
    assert status == 0, err
    store = store_in(home)
    (parent,) = list_runs(store, "tags.kind = 'sweep'")
    assert parent.is_finished
    assert {run.params["dataset.path"] for run in trials(store)} == set(names)
    best = fetch_run(store, parent.tags["best_run"])
    assert OmegaConf.load("best.yaml").dataset.path == best.params["dataset.path"]
