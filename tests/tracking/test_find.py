"""Runs found by what a user calls them; the runs are made up, nothing is trained."""

import re
import shutil
from pathlib import Path

import pytest
from mlflow.entities import Metric, Param, RunTag

from mnist_exp.config.objective import Objective
from mnist_exp.errors import TrackingError
from mnist_exp.tracking.find import RESUMABLE, RUNS, SWEEPS, find_finished, find_run, search_runs
from mnist_exp.tracking.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path, new_database: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlruns").mkdir()
    shutil.copy(new_database, tmp_path / "mlruns")
    return open_store(None, tmp_path / "mlruns")


def add(
    store, name, accuracy, *, kind="run", status="FINISHED", digest="d", validation="v", experiment="mnist", at=0,
    dataset="mnist",
):  # fmt: skip
    run = store.client.create_run(store.experiment_id(experiment), start_time=at, run_name=name)
    params = [Param("dataset.digest", digest), Param("dataset.validation_digest", validation)]
    params.append(Param("dataset.name", dataset))
    metrics = [Metric("val/accuracy", accuracy, 0, 0), Metric("test/accuracy", 1 - accuracy, 0, 0)]
    store.client.log_batch(run.info.run_id, metrics, params, [RunTag("kind", kind)])
    store.client.set_terminated(run.info.run_id, status)
    return run.info.run_id


def test_by_id_by_its_start_and_by_name(store):
    first, second = add(store, "one", 0.9, at=1), add(store, "two", 0.8, at=2)
    assert find_run(store, first).id == first
    assert find_run(store, second[:8]).id == second
    assert find_run(store, "one").id == first


def test_a_name_may_hold_either_kind_of_quote(store):
    for name in ("it's", 'an "e"'):
        run = add(store, name, 0.9)
        assert find_run(store, name).id == run


def test_latest_is_the_newest_and_no_sweep(store):
    add(store, "old", 0.9, at=1)
    trial = add(store, "trial", 0.8, kind="trial", at=2)
    add(store, "sweep", 0.99, kind="sweep", at=3)
    assert find_run(store, "latest").id == trial


def test_a_pruned_trial_is_neither_best_nor_ranked(store):
    complete = add(store, "complete", 0.9, kind="trial", at=1)
    store.client.set_tag(add(store, "pruned", 0.95, kind="trial", at=2), "pruned", "true")
    assert find_run(store, "best").id == complete
    assert [run.id for run in search_runs(store, Objective.from_metric("val/accuracy"), {}, 10)] == [complete]
    assert find_run(store, "pruned").name == "pruned"


def test_best_is_by_validation_among_finished_runs_on_the_same_images(store):
    best = add(store, "best", 0.95, at=1)
    add(store, "crashed", 0.99, status="FAILED", at=2)
    add(store, "other data", 0.99, digest="e", at=3)
    add(store, "other split", 0.99, validation="w", at=4)
    add(store, "a sweep", 0.99, kind="sweep", at=5)
    add(store, "another experiment", 0.99, experiment="else", at=6)
    add(store, "newest", 0.2, at=7)  # best on test
    assert find_run(store, "best").id == best
    assert find_run(store, "best", "else").name == "another experiment"


def test_a_run_is_found_with_its_data_its_score_and_the_reason(store):
    best = add(store, "good", 0.961, digest="0123456789", at=1)
    add(store, "poor", 0.5, digest="0123456789", at=2)
    start = f"run  good ({best[:8]}): mnist (digest 01234567), val/accuracy 96.10%, "
    assert find_finished(store, "best").line == f"{start}best of 2 finished runs on the same images"
    assert find_finished(store, "good").line == f"{start}found by its name"
    assert find_finished(store, best[:8]).line == f"{start}found by its id"
    assert find_finished(store, "latest").line.endswith("val/accuracy 50.00%, the newest finished run")


def test_best_says_which_runs_it_did_not_consider(store):
    add(store, "other split", 0.99, validation="w", at=1)
    add(store, "elsewhere", 0.99, experiment="else", at=2)
    add(store, "one", 0.9, at=3)
    reason = "best of 1 finished run on the same images; 2 on other images or in another experiment were not considered"
    assert find_finished(store, "best").reason == reason


def test_best_of_several_data_sets_has_to_be_told_which(store):
    digits = add(store, "net", 0.8, dataset="digits", experiment="digits", digest="e", at=1)
    mnist = add(store, "net", 0.9, at=2)
    add(store, "worse", 0.7, at=3)
    with pytest.raises(TrackingError) as refused:
        find_run(store, "best")
    assert str(refused.value) == (
        "best is ambiguous: there are finished runs on mnist (2 runs), digits (1 run); "
        "give the data set, such as best:mnist"
    )
    assert [find_run(store, f"best:{name}").id for name in ("digits", "mnist")] == [digits, mnist]
    assert find_run(store, "best", "digits").id == digits
    with pytest.raises(TrackingError, match="best:birds has no finished run; choose one of best:mnist, best:digits"):
        find_run(store, "best:birds")


def test_latest_is_the_newest_that_finished_where_a_model_is_needed(store):
    done = add(store, "done", 0.8, at=1)
    store.client.create_run(store.experiment_id("mnist"), start_time=2, run_name="training", tags={"kind": "run"})
    found = find_finished(store, "latest")
    assert found.run.id == done
    assert re.fullmatch(r"the newest finished run; training \(\w{8}\) is newer and RUNNING", found.reason)
    assert find_run(store, "latest").name == "training"


@pytest.mark.parametrize("wanted", ["nobody", "12", "' or 1=1", "best", "latest"])
def test_an_unknown_run_lists_what_there_is(store, wanted):
    with pytest.raises(TrackingError, match="has no run yet"):
        find_run(store, wanted)
    found = add(store, "known", 0.9, status="FAILED")
    if wanted != "latest":
        with pytest.raises(TrackingError, match=rf"known \({found[:8]}\)"):
            find_run(store, wanted)


def test_what_cannot_be_resumed_is_passed_over(store):
    run = add(store, "one", 0.9, status="KILLED", at=1)
    sweep = add(store, "one", 0.9, kind="sweep", status="KILLED", at=2)
    add(store, "one", 0.9, kind="trial", at=3)
    for among, meant in ((RESUMABLE, run), (SWEEPS, sweep)):
        for wanted in ("one", "latest", meant, meant[:6]):
            assert find_run(store, wanted, among=among).id == meant
        with pytest.raises(
            TrackingError, match=r"the (run|sweep) must be an id, a name or latest, but got 'best'; the newest are: one"
        ):
            find_run(store, "best", among=among)


@pytest.mark.parametrize("among", [RUNS, RESUMABLE, SWEEPS])
def test_runs_of_other_programs_are_not_meant(store, among):
    store.client.create_run(store.experiment_id("digits"))
    with pytest.raises(TrackingError, match=r"the store has no (run|sweep) yet"):
        find_run(store, "latest", among=among)


def test_an_ambiguous_name_lists_the_ids(store):
    some = [add(store, "same", 0.9, at=at) for at in (1, 2)]
    with pytest.raises(TrackingError, match="is ambiguous") as refused:
        find_run(store, "same")
    assert all(run_id[:8] in str(refused.value) for run_id in some)


@pytest.mark.parametrize("uri", ["models:/net@champion", "models:/net/3", "models:/"])
def test_an_unknown_model_is_named(store, uri):
    with pytest.raises(TrackingError, match="is not a registered model"):
        find_run(store, uri)
