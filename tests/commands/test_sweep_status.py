import json
import time
from pathlib import Path

import pytest
from mlflow.entities import Metric, RunTag

from mnist_exp.sweep.space import Choices, Parameter, Space
from mnist_exp.sweep.stored_values import SPACE
from mnist_exp.tracking.requests import Answer, Change, send_request, write_answer
from mnist_exp.tracking.store import Store, open_store
from mnist_exp.tracking.sweep_run import SweepRun

FROZEN = {
    "format": 2,
    "space": {"parameters": []},
    "settings": {"objective": "val/accuracy", "direction": "max", "max_trials": 10},
}


@pytest.fixture
def store(home: Path) -> Store:
    return open_store(None, home / "mlruns")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def trial(store: Store, record: SweepRun, number: int, score: float | None = None, host: str | None = None) -> None:
    run = record.create_trial(number, f"s-{number}", {"optimizer=adam/rate": 0.01 * number}, None, "hash")
    if host:
        store.client.log_batch(run, tags=[RunTag("host", host), RunTag("folder", "somewhere")])
    if score is not None:
        store.client.log_batch(run, [Metric("score", score, 0, 0)])
        store.client.set_terminated(run, end_time=store.client.get_run(run).info.start_time + 60_000)


def test_it_says_what_ended_what_runs_where_and_how_long_it_takes(run_main, store) -> None:
    record = SweepRun.create(store, "digits", "study", FROZEN)
    for number, score in enumerate((0.9, 0.95, 0.8)):
        trial(store, record, number, score)
    trial(store, record, 3, host="one")
    trial(store, record, 4, host="two")
    trial(store, record, 5)  # written down, not yet with a worker
    lost = record.create_trial(6, "s-6", {}, None, "hash")
    record.supersede(lost, "its worker was killed")
    failed = record.create_trial(7, "s-7", {}, None, "hash")
    record.fail(failed, "ValueError")
    status, out, _ = run_main("sweep", "status", "study")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith(f"study ({record.id[:8]}): RUNNING, on ")
    assert lines[1:5] == [
        "trials   4 of 10 ended: 3 complete, 1 failed",
        "best     val/accuracy 0.9500, trial 1",
        "         rate=0.01",
        "running  2; 1 on one; 1 on two",
    ]
    assert lines[5].startswith("left     about ")
    _, out, _ = run_main("sweep", "status", "study", "--json")
    plain = json.loads(out)
    assert (plain["name"], plain["id"], plain["status"]) == ("study", record.id, "RUNNING")
    assert (plain["total"], plain["ended"], plain["outcomes"]) == (10, 4, {"complete": 3, "failed": 1})
    assert (plain["objective"], plain["best"]["trial"], plain["best"]["score"]) == ("val/accuracy", 1, 0.95)
    assert plain["running"] == [{"trial": 3, "host": "one"}, {"trial": 4, "host": "two"}]
    assert plain["seconds_left"] > 0


def test_a_trial_that_runs_again_is_shown_as_running(run_main, store) -> None:
    record = SweepRun.create(store, "digits", "study", FROZEN)
    record.supersede(record.create_trial(0, "s-0", {}, None, "hash"), "its worker was killed")
    time.sleep(0.01)  # MLflow orders runs by the millisecond
    trial(store, record, 0, host="two")
    _, out, _ = run_main("sweep", "status", "study")
    assert out.splitlines()[1:] == ["trials   0 of 10 ended", "running  1; 1 on two"]


def test_trials_outside_of_a_smaller_space_count_beside_it(run_main, store) -> None:
    large, small = (
        {"space": SPACE.dump_python(Space((Parameter("seed", Choices(tuple(range(size))), "test"),)), mode="json")}
        for size in (9, 4)
    )
    settings = {**FROZEN["settings"], "max_trials": None}
    record = SweepRun.create(store, "digits", "study", {**FROZEN, **large, "settings": settings, "size": 9})
    for number, seed in enumerate((8, 7, 6, 5, 1)):
        run = record.create_trial(number, f"s-{number}", {"seed": seed}, None, "hash")
        store.client.log_batch(run, [Metric("score", 0.9, 0, 0)])
        store.client.set_terminated(run)
    record.log_dict(small, "sweep-1.json")
    send_request(store, record.run, "widen", {"words": ["seed=0,1"]})
    write_answer(store, record.id, 1, Answer(True, "yes", 1, 0.0, Change(record="sweep-1.json")))
    _, out, _ = run_main("sweep", "status", "study")
    assert out.splitlines()[1] == "trials   5 of 8 ended: 5 complete"


def test_a_sweep_that_has_just_begun_and_one_that_is_unknown(run_main, store) -> None:
    SweepRun.create(store, "digits", "study", FROZEN)
    status, out, _ = run_main("sweep", "status")
    assert status == 0
    assert out.splitlines()[1:] == ["trials   0 of 10 ended", "running  0"]
    status, _, err = run_main("sweep", "status", "other")
    assert status == 1
    assert "the sweep must be an id, a name or latest, but got 'other'" in err


def test_the_best_trial_of_a_sweep_of_before_format_2_is_shown_with_plain_values(run_main, store) -> None:
    parameter = {"key": "model.widths", "values": {"tokens": ["[8]", "[16,8]"]}, "source": "mine", "when": None}
    record = SweepRun.create(
        store, "digits", "old", {"settings": FROZEN["settings"], "space": {"parameters": [parameter]}}
    )
    run = record.create_trial(0, "old-0", {"model.widths": "[16,8]"}, None, "hash")
    store.client.log_batch(run, [Metric("score", 0.9, 0, 0)])
    store.client.set_terminated(run)
    status, out, _ = run_main("sweep", "status")
    assert status == 0
    assert "         model.widths=[16,8]" in out.splitlines()
