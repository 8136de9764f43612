"""The process of a run, and the ownership of a sweep."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import psutil
import pytest

from mnist_exp.errors import TrackingError
from mnist_exp.tracking import owner
from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.owner import Ownership, OwnershipLost, check_free, end_dead_runs, process_tags, state_of
from mnist_exp.tracking.store import Store, open_store
from mnist_exp.tracking.stored_run import StoredRun, fetch_run
from mnist_exp.tracking.sweep_run import SweepRun

RECORD = {"settings": {"max_trials": 3}}
GONE = {"pid": "4194304", "start_ticks": "1"}  # above the largest number of a process
ELSEWHERE = {"host": "elsewhere", "pid": "7"}


@pytest.fixture
def store(tmp_path: Path, new_database: Path) -> Store:
    (tmp_path / "mlflow.db").write_bytes(new_database.read_bytes())
    return open_store(None, tmp_path)


@pytest.fixture
def sweep(store: Store) -> SweepRun:
    return SweepRun.create(store, "test", "mine", RECORD)


@pytest.fixture
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "SILENCE", 0.5)
    monkeypatch.setattr(owner, "BEAT", 0.05)


def claim_as(store: Store, sweep: SweepRun, **changes: str) -> StoredRun:
    """Another process has claimed the sweep."""
    generation = len([key for key in sweep.fetch().params if key.startswith("owner/")]) + 1
    token = json.dumps({**process_tags(), **changes, "id": "other"})
    store.client.log_param(sweep.id, f"owner/{generation}", token)
    return sweep.fetch()


def test_this_process_is_alive_and_a_clock_that_is_set_does_not_change_that() -> None:
    mine = process_tags()
    assert state_of(mine) == "alive"
    assert state_of({**mine, "started": "1.0"}) == ("alive" if "start_ticks" in mine else "dead")


def test_a_number_that_another_process_got_is_not_the_same_process() -> None:
    assert state_of({**process_tags(), "start_ticks": "1", "started": "1.0"}) == "dead"


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"host": "elsewhere"}, "unknown"),
        ({"boot_id": "of yesterday"}, "dead"),
        ({"pid_namespace": "pid:[1]"}, "unknown"),
        (GONE, "dead"),
        ({"pid": "no number"}, "dead"),
    ],
)
@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="Linux")
def test_what_can_be_known_of_another_process(changes: dict[str, str], state: str) -> None:
    assert state_of({**process_tags(), **changes}) == state


def test_tags_of_an_earlier_version_are_read() -> None:
    mine = {key: value for key, value in process_tags().items() if key in ("host", "pid", "started")}
    assert state_of(mine) == "alive"
    assert state_of({**mine, "started": "1.0"}) == "dead"


def test_a_zombie_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "status", lambda process: psutil.STATUS_ZOMBIE)
    assert state_of(process_tags()) == "dead"


def test_of_two_processes_that_claim_the_same_generation_one_wins(store: Store, sweep: SweepRun) -> None:
    before = sweep.fetch()
    claim_as(store, sweep, **ELSEWHERE)
    with pytest.raises(TrackingError, match="is run by elsewhere, pid 7"):
        Ownership.claim(store, before)


def test_a_claim_that_is_sent_again_is_the_same_claim(store: Store, sweep: SweepRun, monkeypatch) -> None:
    log_param = store.client.log_param

    def twice(*args: str) -> None:
        log_param(*args)
        log_param(*args)

    monkeypatch.setattr(store.client, "log_param", twice)
    assert Ownership.claim(store, sweep.fetch()).owner.generation == 2


def test_a_process_that_has_lost_a_sweep_says_who_runs_it(store: Store, sweep: SweepRun) -> None:
    sweep.ownership.check()
    claim_as(store, sweep, **ELSEWHERE)
    sweep.ownership.check_known()  # asks nobody
    with pytest.raises(OwnershipLost) as lost:
        sweep.ownership.check()
    assert str(lost.value) == (
        f"the sweep mine ({sweep.id[:8]}) is run by elsewhere, pid 7 now, so this process has ended its trials; "
        f"follow it with: python -m mnist_exp sweep status {sweep.id[:8]}"
    )


def test_a_sweep_of_a_live_process_cannot_be_resumed_and_one_that_ended_can(store: Store, sweep: SweepRun) -> None:
    with pytest.raises(TrackingError, match=f"is run by .*, pid {os.getpid()}; .* add sweep.take_over=true"):
        SweepRun.resume(store, "mine")
    SweepRun.resume(store, "mine", force=True)
    sweep.end("FINISHED")
    again = SweepRun.resume(store, "mine")
    again.take_over()
    assert again.ownership.owner.generation == 2


def test_between_a_claim_and_the_status_running_nobody_else_can_resume(store: Store, sweep: SweepRun) -> None:
    sweep.end("FINISHED")
    Ownership.claim(store, sweep.fetch())
    assert sweep.fetch().status == "FINISHED"
    with pytest.raises(TrackingError, match="is run by"):
        SweepRun.resume(store, "mine")


def test_a_sweep_of_a_process_that_is_gone_is_free_at_once(store: Store, sweep: SweepRun) -> None:
    began = time.monotonic()
    check_free(store, claim_as(store, sweep, **GONE))
    assert time.monotonic() - began < 5


@pytest.mark.usefixtures("_in_a_hurry")
def test_a_process_of_another_machine_is_dead_without_a_heartbeat(store: Store, sweep: SweepRun) -> None:
    places: list[str] = []
    check_free(store, claim_as(store, sweep, **ELSEWHERE), places.append)
    assert places == ["elsewhere, pid 7"]


@pytest.mark.usefixtures("_in_a_hurry")
def test_a_process_of_another_machine_is_alive_with_a_heartbeat(store: Store, sweep: SweepRun) -> None:
    elsewhere = claim_as(store, sweep, **ELSEWHERE)
    other = Ownership(store, elsewhere, owner.newest_owner(elsewhere))
    with other.heartbeat(), pytest.raises(TrackingError, match="is run by elsewhere, pid 7"):
        check_free(store, elsewhere)


@pytest.mark.usefixtures("_in_a_hurry")
def test_the_heartbeat_finds_out_that_the_sweep_is_lost(store: Store, sweep: SweepRun) -> None:
    with sweep.ownership.heartbeat():
        claim_as(store, sweep)
        until = time.monotonic() + 20
        while not sweep.ownership.is_lost and time.monotonic() < until:
            time.sleep(0.01)
    with pytest.raises(OwnershipLost):
        sweep.ownership.check_known()


@pytest.mark.usefixtures("_in_a_hurry")
def test_a_heartbeat_survives_a_store_that_is_away(store: Store, sweep: SweepRun, monkeypatch) -> None:
    works, calls = store.client.get_run, []

    def away(run_id: str) -> object:
        calls.append(run_id)
        if len(calls) < 4:
            raise OSError("no route to host")
        return works(run_id)

    monkeypatch.setattr(store.client, "get_run", away)
    with sweep.ownership.heartbeat():
        until = time.monotonic() + 20
        while "heartbeat" not in works(sweep.id).data.tags and time.monotonic() < until:
            time.sleep(0.01)
    assert works(sweep.id).data.tags["heartbeat"].startswith("1 ")


@pytest.fixture
def old_sweep(store: Store) -> SimpleNamespace:
    """Written before sweeps had owners."""
    made = SweepRun.create(store, "test", "old", RECORD)
    run = made.fetch()
    return SimpleNamespace(run=replace(run, params={}), store=store)


@pytest.mark.parametrize(("status", "free"), [("FINISHED", True), ("KILLED", True), ("RUNNING", False)])
def test_a_sweep_without_an_owner_is_free_unless_its_process_lives(old_sweep, status: str, free: bool) -> None:
    run = replace(old_sweep.run, status=status)
    if free:
        check_free(old_sweep.store, run)
    else:
        with pytest.raises(TrackingError, match="is run by"):
            check_free(old_sweep.store, run)
    elsewhere = replace(run, tags={**run.tags, "host": "elsewhere"})
    if status == "RUNNING":  # it has no heartbeat, so nothing is known
        with pytest.raises(TrackingError, match="is run by elsewhere"):
            check_free(old_sweep.store, elsewhere)


def test_dead_parents_are_killed_and_their_sweep_is_released(store: Store, sweep: SweepRun) -> None:
    other = SweepRun.create(store, "test", "other", RECORD)
    claim_as(store, other, **GONE)
    end_dead_runs(store)
    assert sweep.fetch().status == "RUNNING"
    dead = other.fetch()
    assert (dead.status, dead.tags["released/2"]) == ("KILLED", "its process was gone")
    assert not list_runs(store, "attributes.status = 'RUNNING' and tags.`ended_by` LIKE '%'")


def test_what_a_resumed_sweep_changes_is_kept(store: Store, sweep: SweepRun) -> None:
    sweep.end("FINISHED")
    again = SweepRun.resume(store, "mine")
    again.take_over({"overrides": ["sweep.max_trials=9"], "settings": {"max_trials": 9}})
    again.end("FINISHED")
    found = SweepRun.find(store, "mine")
    assert found.record["settings"] == {"max_trials": 9}
    assert [change["overrides"] for change in found.changes] == [["sweep.max_trials=9"]]


def test_an_error_of_an_interrupted_parent_does_not_stay(store: Store, sweep: SweepRun) -> None:
    sweep.end("KILLED", "KeyboardInterrupt: ")
    again = SweepRun.resume(store, "mine")
    again.take_over()
    assert "error" not in fetch_run(store, sweep.id).tags


def test_several_processes_may_end_the_same_dead_runs_at_once(store: Store) -> None:
    """As two commands do that are started after a crash, on a database that does not lock what it has read."""
    sweeps = [SweepRun.create(store, "test", f"s{number}", RECORD) for number in range(8)]
    runs = [store.client.create_run(store.experiment_id("test"), tags={**process_tags(), **GONE}) for _ in range(8)]
    for sweep in sweeps:
        claim_as(store, sweep, **GONE)
    together = Barrier(4)

    def end() -> None:
        together.wait()
        end_dead_runs(store)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(end) for _ in range(4)]:
            done.result()
    ids = [*(run.info.run_id for run in runs), *(sweep.id for sweep in sweeps)]
    assert {fetch_run(store, run_id).status for run_id in ids} == {"KILLED"}
    assert all("released/2" in sweep.fetch().tags for sweep in sweeps)


def test_a_sweep_that_was_claimed_since_the_runs_were_listed_is_left_alone(
    store: Store, sweep: SweepRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_as(store, sweep, **GONE)
    listed = list_runs(store)
    claim_as(store, sweep)
    monkeypatch.setattr(owner, "list_runs", lambda *args: listed)
    end_dead_runs(store)
    assert (sweep.fetch().status, "ended_by" in sweep.fetch().tags) == ("RUNNING", False)
