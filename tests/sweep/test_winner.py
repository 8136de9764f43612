import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
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
from mnist_exp.tracking.stored_run import TrialRun, download, fetch_run, read_metric_history
from mnist_exp.tracking.sweep_run import SweepRun, count_opened


def trial(number: int, score: float | None, values: dict[str, Any] | None = None) -> TrialRun:
    outcome: Any = "failed" if score is None else "complete"
    return TrialRun(f"run{number}", number, values or {}, None, "FINISHED", outcome, score)


@pytest.mark.parametrize(("direction", "order"), [("max", [3, 1, 4, 0]), ("min", [0, 1, 4, 3])])
def test_the_best_trial_comes_first_and_of_equal_ones_the_first(direction, order) -> None:
    trials = [trial(number, score) for number, score in enumerate((0.1, 0.5, None, 0.9, 0.5))]
    assert [one.number for one in rank(trials, Objective("val/accuracy", direction))] == order


def test_a_pruned_trial_never_wins() -> None:
    trials = [trial(0, 0.8), replace(trial(1, 0.99), outcome="pruned"), trial(2, 0.7)]
    assert [one.number for one in rank(trials, Objective("val/accuracy", "max"))] == [0, 2]


def test_only_trials_of_the_largest_budget_are_ranked() -> None:
    rungs = [{"epochs": epochs, "bracket": 0, "number": 0, "parent": None} for epochs in (3, 9, 9)]
    trials = [replace(trial(number, 0.9 - number / 10), rung=rung) for number, rung in enumerate(rungs)]
    assert [one.number for one in rank(trials, Objective("val/accuracy", "max"))] == [1, 2]
    assert rank([], Objective("val/accuracy", "max")) == []


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
    page = parent.tags["mlflow.note.content"]
    assert f"**Winner** trial {best.tags['trial']}: " in page
    assert f"**Test** {parent.metrics['test/accuracy']:.2%} of the images" in page
    assert OmegaConf.load("best.yaml").dataset.path == best.params["dataset.path"]


GRID = ["-m", "model.widths=[4],[8]", "training=smoke", "sweep.sampler=grid"]


def refuse_models(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Lets the store refuse the first models."""
    from mnist_exp.tracking import outbox

    upload, calls = outbox.upload_model, iter(range(count))

    def refuse(*args: Any) -> None:
        if next(calls, None) is not None:
            raise OSError("the disk is full")
        upload(*args)

    monkeypatch.setattr(outbox, "upload_model", refuse)


def test_what_the_store_refused_for_a_while_is_delivered_before_the_winner_is_scored(
    home: Path, run_main, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_models(monkeypatch, 4)  # both trials, and each once more at its end
    status, out, err = run_main(*GRID)
    assert (status, "store deliver" in out) == (0, False), out + err
    assert not (home / "mlruns" / "running").exists()
    (sweep,) = list_runs(store_in(home), "tags.kind = 'sweep'")
    assert "test/accuracy" in sweep.metrics


def test_a_winner_whose_model_the_store_refuses_is_scored_by_the_next_resume(
    home: Path, run_main, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as during:
        refuse_models(during, 1000)
        status, out, err = run_main(*GRID)
    words = " ".join((out + err).split())
    assert status == 1
    assert "has no model in the store; if its process could not deliver it" in words
    assert "the store has not taken everything of trial 0, 1" in words
    assert "Traceback" not in words
    (sweep,) = list_runs(store_in(home), "tags.kind = 'sweep'")
    assert (sweep.status, [key for key in sweep.metrics if key.startswith("test/")]) == ("FAILED", [])
    status, out, err = run_main("-m", "sweep.resume=latest")
    assert status == 0, out + err
    (sweep,) = list_runs(store_in(home), "tags.kind = 'sweep'")
    assert (sweep.status, "test/accuracy" in sweep.metrics) == ("FINISHED", True)
    assert not (home / "mlruns" / "running").exists()


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory, main_in) -> SimpleNamespace:
    """A sweep whose winner was scored and which was extended then, so that another trial wins."""
    home = tmp_path_factory.mktemp("extended")
    space = ["-m", "training.epochs=1,40", "training=smoke", "model.widths=[8]", "optimizer.learning_rate=0.01"]
    first = main_in(home, *space, "sweep.sampler=grid", "sweep.max_trials=1")
    more = main_in(home, "-m", "sweep.resume=latest", "sweep.max_trials=2")
    store = store_in(home)
    (parent,) = list_runs(store, "tags.kind = 'sweep'")
    return SimpleNamespace(home=home, first=first, more=more, store=store, sweep=SweepRun.find(store, parent.id))


def test_every_model_that_was_scored_is_counted(extended) -> None:
    assert (extended.first[0], extended.more[0]) == (0, 0), extended.more[2]
    scores = {run.tags["trial"]: run.metrics["score"] for run in trials(extended.store)}
    assert scores["1"] > scores["0"], "the second trial must win for this test to mean anything"
    openings = extended.sweep.openings()
    assert [opening.model_run for opening in openings] == [
        run.id for run in sorted(trials(extended.store), key=lambda run: run.tags["trial"])
    ]
    assert [sorted(read_metric_history(extended.store, extended.sweep.id, "test/accuracy"))] == [
        [(number, opening.metrics["test/accuracy"]) for number, opening in enumerate(openings, 1)]
    ]


def test_it_is_said_how_many_models_were_looked_at(extended) -> None:
    assert "opened for 1 model of this sweep; another winner would be one more" in " ".join(extended.more[1].split())
    assert "opened for 2 models of this sweep: trial 0 (" in " ".join(extended.more[1].split())
    with download(extended.store, extended.sweep.id, "report.html") as path:
        page = path.read_text(encoding="utf-8")
    assert "The test set was opened for 2 models of this sweep" in page
    assert f"-m sweep.resume={extended.sweep.id[:8]} sweep.max_trials=2" in page
    assert "for this model only" not in page


def test_compare_counts_the_models_that_were_looked_at(extended, main_in) -> None:
    (digest,) = {run.params["dataset.digest"] for run in trials(extended.store)}
    assert count_opened(extended.store, [digest, "other"]) == {digest: 2, "other": 0}
    status, out, _ = main_in(extended.home, "compare")
    assert status == 0
    assert "The test set was opened for 2 models of this store." in " ".join(out.split())


def test_a_resumed_sweep_keeps_its_new_number_of_trials(extended, main_in) -> None:
    assert extended.sweep.record["settings"]["max_trials"] == 2
    status, out, _ = main_in(extended.home, "sweep", "status", "--json")
    assert (status, json.loads(out)["total"], json.loads(out)["test_set_opened"]) == (0, 2, 2)
