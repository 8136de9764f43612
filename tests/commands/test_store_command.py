import json
import shutil
from pathlib import Path

import pytest
from processes import run

from mnist_exp.tracking.store import open_store


@pytest.fixture
def moved(runs, tmp_path) -> tuple[Path, Path]:
    """Where a store was, and where it is now."""
    old, new = runs[0] / "mlruns", tmp_path / "moved here" / "mlruns"
    shutil.copytree(old, new, ignore=shutil.ignore_patterns("*.backup"))
    shutil.rmtree(old)
    return old, new


def test_a_whole_store_has_nothing_missing(run_main) -> None:
    status, out, _ = run_main("store", "check")
    assert (status, out) == (0, "every finished run and model has its files\n")
    assert run_main("store", "check", "--json")[:2] == (0, "[]\n")


def test_a_copy_counts_what_arrived(run_main, tmp_path) -> None:
    to = f"sqlite:///{tmp_path}/copy/mlflow.db"
    status, out, err = run_main("store", "copy", "--to", to, "--json")
    assert status == 0, err
    counts = json.loads(out)
    assert {key: counts[key] for key in ("runs", "before", "models", "versions")} == {
        "runs": 3, "before": 0, "models": 3, "versions": 0
    }  # fmt: skip
    status, out, _ = run_main("store", "copy", "--to", to)
    assert (status, out.partition(";")[0]) == (0, "0 runs copied, 3 were copied before")


def test_a_copy_to_a_new_store_prints_nothing_of_mlflow(home, tmp_path) -> None:
    done = run("store", "copy", "--to", f"sqlite:///{tmp_path}/another/mlflow.db", cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("3 runs copied")


def test_a_moved_store_is_named_and_repaired(run_main, moved, runs) -> None:
    old, new = moved
    status, out, _ = run_main("store", "check", str(new))
    assert status == 1
    assert "run good: " in out
    assert "6 missing" in out  # three runs and their models
    status, out, _ = run_main("store", "check", str(new), "--json")
    assert status == 1
    assert {(one["kind"], one["name"]) for one in json.loads(out)} >= {("run", "good"), ("run", "poor")}
    status, out, _ = run_main("store", "move", str(old), str(new))
    assert status == 0, out
    assert "places now point to" in out
    (backup,) = new.glob("mlflow.db.*.backup")
    assert backup.name in out
    status, _, _ = run_main("store", "check", str(new))
    assert status == 0
    store = open_store(None, new)
    assert "good" in Path(store.client.download_artifacts(runs[1]["good"].run_id, "config.yaml")).read_text()
    status, out, _ = run_main("compare", "--folder", str(new), "--where", "training.epochs=8")
    assert "good (" in out


def test_a_store_that_points_elsewhere_stays_as_it_is(run_main, moved) -> None:
    _, new = moved
    before = (new / "mlflow.db").read_bytes()
    status, _, err = run_main("store", "move", "/never/there", str(new))
    assert status == 1
    assert "does not point to /never/there" in err
    assert (new / "mlflow.db").read_bytes() == before
    assert not list(new.glob("*.backup"))


@pytest.mark.parametrize("arguments", [["check", "nowhere"], ["move", "some", "nowhere"]])
def test_a_folder_without_a_store_is_refused(run_main, arguments) -> None:
    status, _, err = run_main("store", *arguments)
    assert status == 1
    assert "holds no store" in err
