"""runs rm, sweep rm and store gc: what goes, what stays, and what a kill in between leaves."""

import io
import json
import os
import re
import shutil
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from made_up import SWEEP, empty_store
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from processes import at_call, die, run

from mnist_exp.commands.removal import format_bytes
from mnist_exp.tracking import delete, protection
from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.sqlite import check_store
from mnist_exp.tracking.store import Store, open_store
from mnist_exp.tracking.sweep_run import SweepRun


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def store(home: Path, new_database: Path) -> Store:
    return empty_store(home / "mlruns", new_database)


def make_run(store: Store, name: str, size: int = 1000, status: str = "FINISHED", **tags: str) -> str:
    """A run with a file of so many bytes and a model of twice as many."""
    experiment = store.experiment_id("runs")
    values = {"kind": "run", "mlflow.runName": name, **tags}
    run_id = store.client.create_run(experiment, tags=values).info.run_id
    fill(store, run_id, size)
    store.client.set_terminated(run_id, status)
    return run_id


def fill(store: Store, run_id: str, size: int) -> None:
    store.client.log_text(run_id, "x" * size, "file.txt")
    info = store.client.get_run(run_id).info
    model = store.client.create_logged_model(info.experiment_id, "model", run_id)
    folder = Path(model.artifact_location.removeprefix("file://"))
    folder.mkdir(parents=True)
    (folder / "weights").write_text("y" * 2 * size)
    store.client.finalize_logged_model(model.model_id, "READY")


def make_sweep(store: Store, name: str, scores: list[float], seeds: int = 1) -> tuple[SweepRun, list[str]]:
    """A sweep whose trials have a model. With several seeds these are runs below the trial, and the last has it."""
    record = SweepRun.create(store, "runs", name, SWEEP)
    trials = []
    for number, score in enumerate(scores):
        run_id = record.create_trial(number, f"{name}-{number:03d}", {}, None, "hash")
        store.log(run_id, {"score": score}, 0)
        if seeds == 1:
            fill(store, run_id, 500)
        else:
            below = [make_seed(store, f"{name}-{number:03d}-s{seed}", run_id) for seed in range(seeds)]
            store.set_tags(run_id, {"model_run": below[-1]})
            store.client.log_text(run_id, "x", "file.txt")
        store.client.set_terminated(run_id)
        trials.append(run_id)
    record.end("FINISHED")
    return record, trials


def make_seed(store: Store, name: str, trial: str, /, **tags: str) -> str:
    return make_run(store, name, kind="execution", **{"mlflow.parentRunId": trial, **tags})


def names(store: Store) -> set[str]:
    return {run.name for run in list_runs(store)}


def models(home: Path) -> int:
    return len(list((home / "mlruns").rglob("weights")))


def with_models(store: Store) -> set[str]:
    """The names of the runs that have a model."""
    found = store.client.search_logged_models([store.experiment_id("runs")])
    return {store.client.get_run(one.source_run_id).info.run_name for one in found}


def register(store: Store, run_id: str) -> None:
    with suppress(MlflowException):  # there is one of this name
        store.client.create_registered_model("digits")
    store.client.create_model_version("digits", f"runs:/{run_id}/model", run_id)


def assert_whole(home: Path, store: Store) -> None:
    """Nothing is missing, nothing is left over."""
    assert check_store(home / "mlruns") == []
    assert protection.find_orphans(store) == []
    assert protection.find_deleted(protection.Protection.of(store)) == []


def test_a_run_goes_with_its_files_its_model_and_its_row(run_main, home, store):
    make_run(store, "stays")
    gone = make_run(store, "goes")
    status, out, _ = run_main("runs", "rm", "goes", "--yes")
    assert status == 0
    assert re.search(r"2 kB  model  model of goes", out)
    assert re.search(r"3 kB  in all: 1 run, 1 model", out)
    assert out.endswith("removed 3 kB\n")
    assert names(store) == {"stays"}
    assert models(home) == 1
    assert not list((home / "mlruns").rglob(f"*{gone}*"))
    with pytest.raises(MlflowException):
        store.client.get_run(gone)
    assert_whole(home, store)


def test_a_run_that_can_be_resumed_stays(run_main, home, store):
    folder = home / "mlruns" / "running" / "stopped"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "state.json").write_text("{}")
    stopped = make_run(store, "stopped", folder=str(folder))
    store.client.update_run(stopped, status="KILLED")
    status, _, err = run_main("runs", "rm", "stopped", "--yes")
    assert status == 1
    assert "because it can be resumed; remove it with --resumable" in err
    assert folder.is_dir()
    assert run_main("runs", "rm", "stopped", "--yes", "--resumable")[0] == 0
    assert names(store) == set()


def test_gc_in_a_store_that_was_moved_takes_nothing_for_an_orphan(run_main, home, store):
    """Its database names the old places until `store move`."""
    make_run(store, "kept")
    moved = home.parent / f"{home.name}-moved"
    shutil.copytree(home / "mlruns", moved / "mlruns")
    status, out, _ = run_main("store", "gc", "--yes", "--folder", str(moved / "mlruns"))
    assert (status, out) == (0, "nothing to remove\n")
    assert models(moved) == models(home) == 1


def test_gc_takes_the_folders_of_its_own_lost_runs_only(run_main, home, store):
    """A run of a server has its folder here, too, and in it the only copy of what the server has not taken."""
    make_run(store, "kept")
    dead, running = {"pid": "999999999", "started": "1.0", "host": socket.gethostname()}, home / "mlruns" / "running"
    for name, uri in (("ours", store.uri), ("of_a_server", "http://127.0.0.1:1"), ("older", None)):
        (running / name).mkdir(parents=True)
        state = {"run": "f" * 32, "facts": dead, "sent": 0, "refused": [], **({"store": uri} if uri else {})}
        (running / name / "outbox.json").write_text(json.dumps(state))
    assert run_main("store", "gc", "--yes")[0] == 0
    assert sorted(one.name for one in running.iterdir()) == ["of_a_server", "older"]


def test_a_dry_run_removes_nothing_and_a_no_neither(run_main, home, store, monkeypatch):
    make_run(store, "one")
    status, out, _ = run_main("runs", "rm", "one", "--dry-run")
    assert status == 0
    assert out.endswith("nothing was removed, because of --dry-run\n")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    status, _, err = run_main("runs", "rm", "one")
    assert (status, err) == (1, "error: --yes must be given if nobody can be asked, or --dry-run\n")
    plain = json.loads(run_main("runs", "rm", "one", "--dry-run", "--json")[1])
    assert (plain["bytes"], plain["dry_run"], [one["kind"] for one in plain["removed"]]) == (
        3000,
        True,
        ["run", "model"],
    )
    assert names(store) == {"one"}
    assert models(home) == 1


def test_what_is_needed_stays_and_the_error_says_by_whom(run_main, home, store):
    first = make_run(store, "first")
    make_run(store, "second", started_from=first)
    running = make_run(store, "running")
    store.client.update_run(running, status="RUNNING")
    store.set_tags(running, {"host": "elsewhere", "pid": "1"})
    promoted = make_run(store, "promoted")
    register(store, promoted)
    _, trials = make_sweep(store, "sweep", [0.5])
    for name, said in (
        ("first", r"error: first \(\w{8}\) cannot be removed, because it is needed by second \(\w{8}\)"),
        ("running", r"because it is running"),
        ("promoted", r"because it is the run of digits version 1"),
        (
            trials[0],
            r"sweep-000 \(\w{8}\) is a trial, which its sweep counts; remove the sweep with sweep rm, or models",
        ),
        ("sweep", r"sweep \(\w{8}\) is a sweep; python -m mnist_exp sweep rm"),
        ("nosuch", r"'nosuch'"),
    ):
        status, out, err = run_main("runs", "rm", name, "--yes")
        assert (status, out) == (1, ""), name
        assert re.search(said, err), (name, err)
    assert run_main("runs", "rm", "first", "second", "--yes")[0] == 0  # together they may go
    assert names(store) == {"running", "promoted", "sweep", "sweep-000"}


def test_a_sweep_goes_with_its_trials_unless_something_outside_needs_one(run_main, home, store):
    _, trials = make_sweep(store, "sweep", [0.5, 0.7])
    make_seed(store, "seed", trials[0])
    other = make_run(store, "other", started_from=trials[1])
    status, _, err = run_main("sweep", "rm", "sweep", "--yes")
    assert status == 1
    assert "sweep-001" in err
    assert "is needed by other" in err
    store.client.delete_tag(other, "started_from")
    assert run_main("sweep", "rm", "sweep", "--yes")[0] == 0
    assert names(store) == {"other"}
    assert_whole(home, store)


def test_a_sweep_that_could_be_resumed_needs_an_option(run_main, home, store):
    record = SweepRun.create(store, "runs", "stopped", SWEEP)
    status, _, err = run_main("sweep", "rm", "stopped", "--yes")
    assert status == 1
    assert "because it is running" in err
    record.end("KILLED")
    status, _, err = run_main("sweep", "rm", "stopped", "--yes")
    assert status == 1
    assert "because it can be resumed; remove it with --resumable" in err
    assert run_main("sweep", "rm", "stopped", "--yes", "--resumable")[0] == 0
    assert names(store) == set()


def test_gc_removes_deleted_runs_orphans_and_the_models_of_old_sweeps(run_main, home, store):
    kept = make_run(store, "kept")
    deleted = make_run(store, "deleted")
    needed = make_run(store, "needed")
    store.set_tags(kept, {"started_from": needed})
    store.client.delete_run(deleted)
    store.client.delete_run(needed)
    artifacts = next((home / "mlruns" / "artifacts").iterdir())
    of_users = (artifacts / "notes", artifacts.parent / "papers")
    gone = (artifacts / ("a" * 32), artifacts / "models" / "m-1", artifacts.parent / "gone" / ("b" * 32))
    for place in (*of_users, *gone):
        place.mkdir(parents=True)
        (place / "file").write_text("z" * 100)
    _, trials = make_sweep(store, "sweep", [0.5, 0.9, 0.7, 0.8])
    before = (home / "mlruns" / "mlflow.db").stat().st_size
    status, out, _ = run_main("store", "gc", "--keep-models", "2", "--yes")
    assert status == 0, out
    assert "1 run, 3 models, 3 folders without a run" in out
    assert (home / "mlruns" / "mlflow.db").stat().st_size <= before
    left = {one.source_run_id for one in store.client.search_logged_models([store.experiment_id("runs")])}
    assert left >= {kept, trials[1], trials[3]}
    assert not left & {trials[0], trials[2], deleted}
    assert store.client.get_run(needed).info.lifecycle_stage == "deleted"
    assert [place.is_dir() for place in (*of_users, *gone)] == [True, True, False, False, False]
    assert check_store(home / "mlruns") == []
    assert run_main("store", "gc", "--keep-models", "2", "--yes")[1] == "nothing to remove\n"


def test_gc_keeps_the_models_that_the_best_trials_use_and_the_new_seeds_that_confirm_them(run_main, home, store):
    """Of trials with several seeds, the models lie in the runs below them."""
    _, trials = make_sweep(store, "sweep", [0.5, 0.9, 0.7, 0.6], seeds=2)
    for number in (0, 1):
        confirms = {"sweep": store.client.get_run(trials[number]).data.tags["sweep"], "confirms": "0"}
        make_seed(store, f"again-{number}", trials[number], trial=str(number), **confirms)
    make_run(store, "other", started_from=trials[3])  # with the weights of its best seed
    make_sweep(store, "whole", [0.5, 0.4], seeds=2)
    status, out, _ = run_main("store", "gc", "--keep-models", "1", "--yes")
    assert status == 0, out
    assert with_models(store) == {"sweep-001-s1", "again-1", "sweep-003-s1", "other", "whole-000-s1"}
    assert models(home) == 5
    assert "sweep-000-s0" in names(store)
    assert_whole(home, store)


def test_a_model_that_is_registered_stays_though_it_was_deleted(run_main, home, store):
    promoted, other = make_run(store, "promoted"), make_run(store, "other")
    register(store, promoted)
    for model in store.client.search_logged_models([store.experiment_id("runs")]):
        store.client.delete_logged_model(model.model_id)
    assert run_main("store", "gc", "--yes")[0] == 0
    (left,) = (home / "mlruns").rglob("weights")
    assert store.client.get_model_version("digits", "1").run_id == promoted
    assert names(store) == {"promoted", "other"}
    assert other not in str(left)


def test_a_deleted_sweep_stays_whole_as_long_as_a_trial_of_it_is_needed_or_runs(run_main, home, store):
    record, trials = make_sweep(store, "sweep", [0.5, 0.9])
    store.client.update_run(trials[0], status="RUNNING")
    store.set_tags(trials[0], {"host": "elsewhere", "pid": "1"})
    store.client.delete_run(record.id)
    assert run_main("store", "gc", "--yes")[1] == "nothing to remove\n"
    store.client.set_terminated(trials[0])
    assert run_main("store", "gc", "--yes")[0] == 0
    assert names(store) == set()
    assert_whole(home, store)


def test_old_models_stay_as_long_as_their_sweep_is_young(run_main, home, store):
    make_sweep(store, "sweep", [0.5, 0.9])
    assert run_main("store", "gc", "--keep-models", "1", "--older-than", "1", "--yes")[1] == "nothing to remove\n"


@pytest.fixture
def meanwhile(monkeypatch):
    """Lets something happen while the command waits for an answer, which is yes."""

    def prepare(happens) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("click.confirm", lambda question: happens() or True)

    return prepare


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda store, run_id: register(store, run_id), "because it is the run of digits version 1"),
        (lambda store, run_id: make_run(store, "new", started_from=run_id), r"because it is needed by new \("),
        (lambda store, run_id: store.client.update_run(run_id, status="RUNNING"), "because it is running"),
    ],
    ids=["registered", "needed", "started"],
)
def test_a_run_that_changes_while_nobody_has_answered_yet_stays(run_main, home, store, meanwhile, change, said):
    run_id = make_run(store, "mine", host="elsewhere", pid="1")
    meanwhile(lambda: change(store, run_id))
    status, out, err = run_main("runs", "rm", "mine")
    assert status == 1
    assert "in all: 1 run, 1 model" in out
    assert re.search(said, err)
    assert "mine" in names(store)
    assert list((home / "mlruns").glob(f"artifacts/runs/{run_id}/artifacts/file.txt"))
    assert check_store(home / "mlruns") == []


def test_a_sweep_that_went_on_while_nobody_has_answered_yet_stays(run_main, home, store, meanwhile):
    record, _ = make_sweep(store, "sweep", [0.5])
    meanwhile(lambda: make_run(store, "sweep-001", kind="trial", sweep=record.id, trial="1", values="{}"))
    status, _, err = run_main("sweep", "rm", "sweep")
    assert status == 1
    assert "is needed by sweep-001" in err
    assert names(store) == {"sweep", "sweep-000", "sweep-001"}


def test_gc_leaves_out_what_changes_while_nobody_has_answered_yet(run_main, home, store, meanwhile):
    back, gone = make_run(store, "back"), make_run(store, "gone")
    _, trials = make_sweep(store, "sweep", [0.9, 0.5, 0.4])
    for one in (back, gone):
        store.client.delete_run(one)

    def change() -> None:
        store.client.restore_run(back)
        register(store, trials[1])

    meanwhile(change)
    status, out, _ = run_main("store", "gc", "--keep-models", "1")
    assert status == 0, out
    assert "in all: 2 runs, 4 models" in out
    said = re.search(r"^3 of them were left out, because they changed since they were found: (.*)$", out, re.MULTILINE)
    assert said
    assert f"run back ({back[:8]})" in said[1]
    assert f"model model of sweep-001 ({trials[1][:8]})" in said[1]
    assert with_models(store) == {"back", "sweep-000", "sweep-001"}
    assert_whole(home, store)


def test_a_copy_of_a_store_removes_no_file_of_the_first_one(run_main, home, store):
    """Its database names the places of the first store until `store move`."""
    folder = home / "mlruns" / "running" / "cut"
    folder.mkdir(parents=True)
    cut = make_run(store, "cut", status="KILLED", folder=str(folder))
    (folder / "outbox.json").write_text(json.dumps({"run": cut, "store": store.uri}))
    deleted = make_run(store, "deleted")
    make_sweep(store, "sweep", [0.5, 0.9])
    store.client.delete_run(deleted)
    copied = home / "mlruns" / "backup"  # even within
    shutil.copytree(home / "mlruns", home / "copied")
    shutil.move(home / "copied", copied)
    before = {path for path in (home / "mlruns").rglob("*") if path.is_file() and copied not in path.parents}
    status, out, _ = run_main("runs", "rm", "cut", "--yes", "--folder", str(copied))
    assert status == 0, out
    experiment = home / "mlruns" / "artifacts" / "runs"
    assert f"the files of 2 of them lie outside of this store, in {experiment}, {experiment}/models, and stay;" in out
    assert "python -m mnist_exp store move OLD NEW" in out
    assert out.endswith("removed 0 bytes\n")
    assert run_main("store", "gc", "--keep-models", "1", "--yes", "--folder", str(copied))[0] == 0
    assert run_main("sweep", "rm", "sweep", "--yes", "--folder", str(copied))[0] == 0
    assert names(open_store(None, copied)) == set()
    assert before <= set((home / "mlruns").rglob("*"))
    assert names(store) == {"cut", "sweep", "sweep-000", "sweep-001"}
    assert run_main("store", "move", str(home / "mlruns"), str(copied))[0] == 0
    told = json.loads(run_main("runs", "rm", "cut", "--dry-run", "--json")[1])
    assert (told["bytes"], told["left"], len(told["removed"])) == (
        3000 + (folder / "outbox.json").stat().st_size,
        [],
        3,
    )


class Killed(BaseException):
    """What a kill does to the commands: nothing after it runs."""


POINTS = [
    *((delete, "remove_files", call, before) for call in (1, 3, 5) for before in (True, False)),
    *((os, "rmdir", call, True) for call in (1, 2, 3, 5, 7)),
    *((os, "unlink", call, True) for call in (1, 2, 3, 4, 5)),
    *((MlflowClient, "delete_run", call, before) for call in (1, 3) for before in (True, False)),
    *((MlflowClient, "delete_logged_model", call, before) for call in (1, 2) for before in (True, False)),
    *((SqlAlchemyStore, "_hard_delete_run", call, before) for call in (1, 3) for before in (True, False)),
    *((SqlAlchemyStore, "_hard_delete_logged_model", call, before) for call in (1, 2) for before in (True, False)),
]


@pytest.mark.parametrize(("target", "name", "call", "before"), POINTS)
def test_a_kill_in_between_leaves_nothing_that_the_next_gc_does_not_remove(
    run_main, home, store, monkeypatch, target, name, call, before
):
    def kill() -> None:
        raise Killed

    make_run(store, "kept")
    make_sweep(store, "sweep", [0.5, 0.9])
    with monkeypatch.context() as patch:
        patch.setattr(target, name, getattr(target, name))  # restored at the end of the block
        at_call(target, name, call, kill, before=before)()
        with suppress(Killed):
            run_main("sweep", "rm", "sweep", "--yes")
    assert check_store(home / "mlruns") == []
    if "sweep" in names(store):
        assert run_main("sweep", "rm", "sweep", "--yes")[0] == 0
    assert run_main("store", "gc", "--yes")[0] == 0
    assert names(store) == {"kept"}
    assert_whole(home, store)
    assert models(home) == 1


def test_a_process_that_is_killed_leaves_nothing_either(home, store):
    make_run(store, "kept")
    make_sweep(store, "sweep", [0.5, 0.9])
    killed = run(
        "sweep", "rm", "sweep", "--yes", cwd=home, prepare=at_call(SqlAlchemyStore, "_hard_delete_run", 2, die)
    )
    assert killed.returncode == -signal.SIGKILL
    assert run("store", "gc", "--yes", cwd=home).returncode == 0
    if "sweep" in names(store):
        assert run("sweep", "rm", "sweep", "--yes", cwd=home).returncode == 0
    assert names(store) == {"kept"}
    assert_whole(home, store)


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (1_234_567, "1.23 MB"), (5e12, "5 TB")]
)
def test_bytes_are_written_with_three_digits(count, said):
    assert format_bytes(count) == said
