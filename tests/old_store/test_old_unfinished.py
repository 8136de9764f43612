"""Goes on with what version 4bcc55e left unfinished, in a copy of its store."""

import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Run
from stored import (
    assert_nothing_renamed,
    client_of,
    file_of,
    names_of,
    plain,
    read_json,
    run_named,
    runs,
    scores_of_the_longest,
    trials_of,
)

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(copy: Path) -> Path:
    """run_main works in a copy of the old store."""
    return copy


@pytest.mark.parametrize(("name", "epochs"), [("killed", 5), ("terminated", 4)])
def test_a_run_goes_on_after_a_signal(run_main: Main, copy: Path, name: str, epochs: int) -> None:
    client = client_of(copy)
    before = run_named(client, name)
    trained = {point.step: point.value for point in client.get_metric_history(before.info.run_id, "train/loss")}
    assert 0 < len(trained) < epochs
    status, _, err = run_main(f"training.resume={before.info.run_id[:8]}")
    assert status == 0, err
    run = client.get_run(before.info.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == before.data.params
    assert not {"error", "ended_by"} & run.data.tags.keys()
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in points] == list(range(1, epochs + 1))
    assert {point.step: point.value for point in points}.items() >= trained.items()
    history = read_json(file_of(run, "history.json"))
    assert len(history["loss"]) == epochs
    assert not Path(run.data.tags["folder"]).exists()
    status, out, _ = run_main("predict", str(copy / "images/digits/validation-0.png"), "--run", name, "--json")
    assert status == 0, out


def test_a_run_is_reproduced(run_main: Main, copy: Path) -> None:
    status, out, err = run_main("reproduce", "first")
    assert status == 0, out + err
    client = client_of(copy)
    first, again = run_named(client, "first"), run_named(client, "first-again")
    assert again.data.tags["reproduces"] == first.info.run_id
    scores = {key: value for key, value in first.data.metrics.items() if key.startswith(("val/", "test/", "train/"))}
    assert {key: again.data.metrics[key] for key in scores} == pytest.approx(scores, abs=1e-4)


@pytest.fixture
def resume(run_main: Main, copy: Path, expected: dict[str, Any]) -> Callable[[str, int], dict[int, Run]]:
    """Resumes a sweep by its command line, holds that it comes to its end, and returns the run of each trial."""

    def go_on(name: str, trials: int) -> dict[int, Run]:
        client = client_of(copy)
        before = trials_of(client, run_named(client, name))
        status, out, err = run_main("-m", f"sweep.resume={run_named(client, name).info.run_id[:8]}")
        assert status == 0, out + err
        sweep = run_named(client, name)
        assert sweep.info.status == "FINISHED"
        ended = [run for run in trials_of(client, sweep) if counts(run)]
        by_number = {int(run.data.tags["trial"]): run for run in ended}
        assert sorted(by_number) == list(range(trials))
        assert len(ended) == trials, "each number once"
        new = {run.info.run_id for run in ended} - {run.info.run_id for run in before}
        for number, trial in expected["sweeps"][name]["trials"].items():
            assert_as_recorded(by_number[int(number)], trial, new)
        assert_result(sweep, by_number)
        for run in ended:
            old = [one for one in before if counts(one) and one.info.status == "FINISHED" and alike(one, run)]
            if run.info.run_id in new and old:
                assert_nothing_renamed(without_epochs(names_of(client, old[0])), names_of(client, run))
        return by_number

    return go_on


def counts(run: Run) -> bool:
    """Whether a run is the last word on its trial."""
    return run.info.status in ("FINISHED", "FAILED") and "superseded" not in run.data.tags


def alike(one: Run, other: Run) -> bool:
    return one.data.params["optimizer"] == other.data.params["optimizer"]


def without_epochs(names: SimpleNamespace) -> SimpleNamespace:
    """Checkpoints left out, whose names hold the number of the epoch."""
    names.artifacts = {path for path in names.artifacts if not path.startswith("checkpoint/epoch-")}
    return names


def assert_as_recorded(run: Run, trial: dict[str, Any], new: set[str]) -> None:
    """The trial has the values that 4bcc55e wrote down, and ran again only if it was open."""
    values = plain(trial["values"])
    assert plain(read_json(run.data.tags["values"])) == values
    assert (run.info.run_id in new) == (trial["status"] not in ("FINISHED", "FAILED"))
    assert {key: run.data.params[key] for key in values} == {key: str(value) for key, value in values.items()}
    if run.info.run_id not in new:
        assert run.data.metrics.get("score") == trial["score"]


def assert_result(sweep: Run, trials: dict[int, Run]) -> None:
    """The sweep has a winner, its test score, its config and its report."""
    best = trials[int(sweep.data.tags["best_trial"])]
    assert best.data.metrics["score"] == max(scores_of_the_longest(trials.values()))
    assert sweep.data.tags["best_run"] == best.info.run_id
    assert 0 <= sweep.data.metrics["test/accuracy"] <= 1
    assert file_of(sweep, "report.html").is_file()
    assert file_of(sweep, "best.yaml").is_file()


@pytest.mark.parametrize(("name", "trials"), [("random-cut", 4), ("tpe-cut", 5), ("awkward-cut", 3), ("failures", 2)])
def test_a_sweep_goes_on_to_its_planned_end(resume: Callable, name: str, trials: int) -> None:
    resume(name, trials)


def test_a_sweep_that_goes_on_longer_is_scored_by_the_definitions_it_began_with(
    run_main: Main, copy: Path, expected: dict[str, Any]
) -> None:
    """Its objective is val/loss, which was the cross-entropy of clipped probabilities."""
    client = client_of(copy)
    sweep = run_named(client, "random-done")
    before = [point.step for point in client.get_metric_history(sweep.info.run_id, "trials/scored")]
    status, out, err = run_main("-m", f"sweep.resume={sweep.info.run_id[:8]}", "sweep.max_trials=4")
    assert status == 0, out + err
    by_number = {int(run.data.tags["trial"]): run for run in trials_of(client, sweep)}
    assert {n: by_number[n].data.metrics["score"] for n in range(3)} == {
        int(n): trial["score"] for n, trial in expected["sweeps"]["random-done"]["trials"].items()
    }
    with np.load(file_of(by_number[3], "predictions.npz")) as arrays:
        chosen = arrays["val_probabilities"][np.arange(len(arrays["val_labels"])), arrays["val_labels"]]
    clipped = -np.log(np.clip(chosen.astype(float), 1e-7, 1 - 1e-7)).mean()
    assert by_number[3].data.metrics["score"] == pytest.approx(clipped, rel=1e-6)
    after = [point.step for point in client.get_metric_history(sweep.info.run_id, "trials/scored")]
    assert after == [*before, max(before) + 1]


def test_a_grid_that_its_process_left_running_goes_on(resume: Callable, copy: Path) -> None:
    """SIGKILL leaves a sweep and its trial RUNNING, until the next command on this host."""
    client = client_of(copy)
    sweep = run_named(client, "grid-cut")
    trial = trials_of(client, sweep)[-1]
    for run in (sweep, trial):
        client.set_tag(run.info.run_id, "host", socket.gethostname())
        client.update_run(run.info.run_id, status="RUNNING")
    trials = resume("grid-cut", 4)
    assert [plain(read_json(run.data.tags["values"])) for _, run in sorted(trials.items())] == [
        {"optimizer": optimizer, "model.activation": activation}
        for optimizer in ("adam", "sgd")
        for activation in ("relu", "tanh")
    ]
    assert client.get_run(trial.info.run_id).info.status == "KILLED"


def test_a_sweep_that_another_host_runs_is_left_to_it(run_main: Main, copy: Path) -> None:
    client = client_of(copy)
    sweep = run_named(client, "grid-cut")
    client.update_run(sweep.info.run_id, status="RUNNING")
    status, _, err = run_main("-m", "sweep.resume=grid-cut")
    assert status == 1
    assert "is run by host, pid" in err
    assert sweep.data.tags["pid"] in err
    assert client.get_run(sweep.info.run_id).info.status == "RUNNING"


def test_a_promoted_trial_of_hyperband_continues_the_old_checkpoint(resume: Callable) -> None:
    trials = resume("hyperband-cut", 5)
    parents = {number: read_json(run.data.tags["rung"])["parent"] for number, run in trials.items()}
    ((promoted, parent),) = ((number, parent) for number, parent in parents.items() if parent is not None)
    first, both = (read_json(file_of(trials[number], "history.json"))["loss"] for number in (parent, promoted))
    assert len(both) == 2
    assert both[0] == first[0], "its first epoch is that of the trial it continues"


def test_the_seeds_of_an_interrupted_trial_are_trained_again(resume: Callable, copy: Path) -> None:
    trial = resume("seeds-cut", 2)[1]
    client = client_of(copy)
    seeds = runs(client, f"tags.kind = 'execution' and tags.`mlflow.parentRunId` = '{trial.info.run_id}'")
    assert [run.data.params["seed"] for run in seeds] == ["0", "1"]
    scores = [run.data.metrics["val/accuracy"] for run in seeds]
    assert trial.data.metrics["score"] == pytest.approx(sum(scores) / 2)
    assert {"score_spread", "val/accuracy"} <= trial.data.metrics.keys()
    assert trial.data.tags["model_run"] == seeds[scores.index(max(scores))].info.run_id
    assert_nothing_renamed(names_of(client, run_named(client, "seeds-cut-000-s0")), names_of(client, seeds[0]))
