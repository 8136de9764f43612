"""Whole sweeps by their command line."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from command_line import OWN, prepare_folder, run, store_in, trials
from mlflow import MlflowClient
from omegaconf import OmegaConf
from processes import Process

from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.stored_run import read_metric_history


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, new_database: Path) -> tuple[Path, Process]:
    """A grid of eight on two workers: one trial raises, another differently, one kills its worker."""
    folder = prepare_folder(tmp_path_factory.mktemp("swept"), new_database)
    done = run(
        folder, *OWN, "+model.width=8,13,16,66,24,14,32,40", "executor=local", "executor.workers=2",
        "sweep.name=widths", "sweep.save_best=best/found.yaml",
    )  # fmt: skip
    return folder, done


def test_good_trials_count_and_bad_ones_are_recorded_as_what_they_were(swept) -> None:
    folder, done = swept
    assert done.returncode == 0, done.stderr
    runs = trials(store_in(folder))
    assert Counter(run.status for run in runs) == {"FINISHED": 5, "FAILED": 3}
    failed = {json.loads(run.tags["values"])["model.width"]: run for run in runs if run.status == "FAILED"}
    assert failed.keys() == {13, 14, 66}
    assert failed[13].tags["error"] == "ValueError: thirteen brings bad luck"
    assert "killed 2 times" in failed[66].tags["error"]


def test_no_trial_leaves_a_folder_not_even_a_killed_one(swept) -> None:
    assert not (swept[0] / "mlruns" / "running").exists()


def test_a_worker_that_was_killed_was_tried_twice_and_cost_no_other_trial(swept) -> None:
    superseded = [run for run in list_runs(store_in(swept[0]), "tags.kind = 'trial'") if "superseded" in run.tags]
    assert [json.loads(run.tags["values"])["model.width"] for run in superseded] == [66]
    assert superseded[0].status == "KILLED"


def test_a_failed_trial_keeps_its_traceback(swept) -> None:
    store = store_in(swept[0])
    (failed,) = [run for run in trials(store) if "thirteen" in run.tags.get("error", "")]
    path = store.client.download_artifacts(failed.id, "traceback.txt")
    assert "my_net.py" in Path(path).read_text()


def test_a_trial_leaves_what_a_run_leaves_but_for_the_test_set(swept) -> None:
    store = store_in(swept[0])
    (one, *_) = [run for run in trials(store) if run.status == "FINISHED"]
    found = {artifact.path for artifact in store.client.list_artifacts(one.id)}
    assert {"config.yaml", "figures", "history.json", "model_summary.txt", "predictions.npz", "reports"} <= found
    assert not [key for key in one.metrics if key.startswith("test/")]
    assert {"val/accuracy", "val/macro_f1", "train/loss", "score"} <= one.metrics.keys()
    assert one.params["model"] == "custom"
    assert not [key for key in one.params if key.startswith(("sweep", "executor"))]
    config = OmegaConf.load(store.client.download_artifacts(one.id, "config.yaml"))
    assert "sweep" not in config


def test_the_winner_alone_is_scored_on_the_test_set_and_can_be_trained_again(swept) -> None:
    folder, _ = swept
    store = store_in(folder)
    (parent,) = list_runs(store, "tags.kind = 'sweep'")
    best = max((run for run in trials(store) if run.status == "FINISHED"), key=lambda r: r.metrics["score"])
    assert parent.tags["best_run"] == parent.tags["tested"] == best.id
    assert parent.status == "FINISHED"
    assert 0 < parent.metrics["test/accuracy"] <= 1
    scores = [value for _, value in read_metric_history(store, parent.id, "best/score")]
    assert scores == sorted(scores)
    assert scores[-1] == parent.metrics["best/score"] == best.metrics["score"]
    ended = read_metric_history(store, parent.id, "trials/failed")
    assert [step for step, _ in ended] == list(range(1, 9))
    saved = (folder / "best" / "found.yaml").read_text()
    assert saved.startswith("# @package _global_\n")
    assert OmegaConf.create(saved).model.width == json.loads(best.tags["values"])["model.width"]
    kept = {artifact.path for artifact in store.client.list_artifacts(parent.id)}
    assert {"best.yaml", "report.html", "sweep.json", "figures"} <= kept


def test_the_terminal_tells_the_story_without_chatter(swept) -> None:
    said = swept[1].stdout
    assert swept[1].stderr == ""
    assert "widths: grid, 8 trials, 2 at a time" in said
    assert "8: 5 complete, 3 failed; every planned trial has run" in said
    assert re.search(r"^test +\d+\.\d+%", said, re.MULTILINE)
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.slow
def test_24_trials_on_mnist_of_which_three_raise_and_one_kills_its_worker(
    real_mnist: Path, tmp_path: Path, new_database: Path
) -> None:
    prepare_folder(tmp_path, new_database)
    widths = [8, 9, 13, 16, *range(18, 21), 66, *range(21, 25), 14, *range(25, 31), 15, *range(32, 36)]
    done = run(
        tmp_path, *OWN, "dataset=mnist", f"dataset.path={real_mnist}", "executor=local", "executor.workers=2",
        f"+model.width={','.join(map(str, widths))}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = trials(store_in(tmp_path))
    assert Counter(run.status for run in runs) == {"FINISHED": 20, "FAILED": 4}
    errors = {json.loads(run.tags["values"])["model.width"]: run.tags.get("error") for run in runs}
    assert errors[13] == "ValueError: thirteen brings bad luck"
    assert errors[14] == "KeyError: 'fourteen'"
    assert errors[15] == "RuntimeError: fifteen"
    assert "killed 2 times" in errors[66]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tracking=off", "seed=1,2"], "needs the tracking store"),
        (["training=smoke"], "a sweep needs something to choose"),
        (["sweep.resume=latest"], "the store has no sweep yet; start one with: python -m mnist_exp -m ..."),
        (["seed=1,2", "sweep.objective=test/accuracy"], "sweep.objective must not be a metric of the test set"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_one_go(arguments, said, run_main) -> None:
    status, _, err = run_main("-m", *arguments)
    assert status == 1
    assert said in err
    assert "Traceback" not in err


def test_sweep_keys_without_m_are_refused(run_main) -> None:
    status, _, err = run_main("sweeps=smoke")
    assert status == 1
    assert "sweeps=smoke can be given to a sweep only; add -m: python -m mnist_exp -m sweeps=smoke" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        # three errors of three kinds, so that no rule stops the sweep
        ([*OWN, "+model.width=13,14,15"], "no trial is complete, so there is no winner; the last one"),
        # the message holds the varied learning rate; the cause is the same
        (["training=smoke", "optimizer=sgd", "optimizer.learning_rate=1e25,1e30,1e33,1e37"], "3 trials in a row"),
    ],
)  # fmt: skip
def test_a_sweep_without_a_complete_trial_has_failed(arguments, said, home, new_database, run_main) -> None:
    prepare_folder(home, new_database)
    status, out, _ = run_main("-m", *arguments, "executor=inline")
    assert status == 1
    out = " ".join(out.split())
    assert "3: 3 failed; " in out
    assert f"error {said}" in out
    (parent,) = list_runs(store_in(home), "tags.kind = 'sweep'")
    assert parent.status == "FAILED"
    assert "report.html" in {file.path for file in store_in(home).client.list_artifacts(parent.id)}


def test_a_net_that_ends_the_process_fails_its_trial_only(home, new_database, run_main) -> None:
    prepare_folder(home, new_database)
    status, out, _ = run_main("-m", *OWN, "+model.width=17,8", "executor=inline")
    assert status == 0, out
    runs = {json.loads(run.tags["values"])["model.width"]: run for run in trials(store_in(home))}
    assert (runs[17].status, runs[17].tags["error"], runs[8].status) == ("FAILED", "SystemExit: 0", "FINISHED")
    assert "RuntimeError: the code of the run ended the process: SystemExit(0) (my_net.py:" in " ".join(out.split())
    assert not (home / "mlruns" / "running").exists()


def test_a_trial_of_which_the_store_refused_a_call_keeps_its_score(
    home, new_database, run_main, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = MlflowClient.log_batch

    def refuse(client, run_id, metrics=(), params=(), tags=(), **keys):
        if any((param.key, param.value) == ("model.width", "9") for param in params):
            raise OSError("a value that is too long")
        return works(client, run_id, metrics, params, tags, **keys)

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    prepare_folder(home, new_database)
    status, out, _ = run_main("-m", *OWN, "+model.width=8,9", "executor=inline")
    assert status == 1
    said = "warning the store has not taken everything of trial 1; on its machine, deliver it with: python -m mnist_exp"
    assert said in " ".join(out.split())
    runs = {json.loads(run.tags["values"])["model.width"]: run for run in trials(store_in(home))}
    assert {run.status for run in runs.values()} == {"FINISHED"}
    assert "score" in runs[9].metrics
    assert runs[9].params["training.epochs"] == "2", "one refused parameter costs no other"
    (parent,) = list_runs(store_in(home), "tags.kind = 'sweep'")
    assert parent.status == "FINISHED"
    status, out, _ = run_main("store", "deliver", "--json")
    (refused,) = json.loads(out)
    assert (status, refused["refused"]) == (1, ["params (a value that is too long)"])
    monkeypatch.setattr(MlflowClient, "log_batch", works)
    status, out, _ = run_main("store", "deliver", runs[9].id[:8])
    assert (status, out) == (0, f"{runs[9].name} ({runs[9].id[:8]}): 1 call delivered; the run is FINISHED\n")
    assert run_main("store", "deliver")[:2] == (0, "nothing to deliver\n")
    assert not (home / "mlruns" / "running").exists()
