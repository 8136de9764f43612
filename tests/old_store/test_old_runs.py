"""Reads the store of version 4bcc55e: its runs, models, sweeps and configs are there and say what they said."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image
from stored import client_of, file_of, read_json, run_named, runs, scores_of_the_longest, trials_of

IMAGES = 10  # the first validation images lie beside the store
ROUNDING = 1e-3  # predictions.npz holds float16


@pytest.fixture
def home(old: Path) -> Path:
    """run_main works in the folder of the store, and only reads it."""
    return old


@pytest.fixture(scope="module")
def client(old: Path) -> MlflowClient:
    return client_of(old)


@pytest.fixture
def images(old: Path) -> list[str]:
    return [str(old / "images/digits" / f"validation-{row}.png") for row in range(IMAGES)]


def probabilities(client: MlflowClient, run_id: str) -> np.ndarray:
    """Those that a run recorded for the images, (n, classes)."""
    with np.load(file_of(client.get_run(run_id), "predictions.npz")) as arrays:
        return arrays["val_probabilities"][:IMAGES].astype(float)


def answers(run_main: Any, images: list[str], run: str) -> list[dict[str, Any]]:
    status, out, err = run_main("predict", *images, "--run", run, "--json")
    assert status == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_nothing_is_missing(run_main) -> None:
    status, out, _ = run_main("store", "check")
    assert status == 0, out


def test_the_runs_ended_as_they_had_ended(client, expected) -> None:
    found = {run.info.run_name: run.info.status for run in runs(client, "tags.kind = 'run'")}
    assert found == expected["runs"]
    assert set(found.values()) == {"FINISHED", "FAILED", "KILLED"}


def test_compare_prints_the_recorded_numbers(run_main, expected) -> None:
    names = list(expected["compare"])
    status, out, err = run_main("compare", *names, "--json")
    assert status == 0, err
    rows = {row["name"]: row for row in json.loads(out)}
    assert list(rows) == names
    for name, recorded in expected["compare"].items():
        assert {key: rows[name].get(key) for key in recorded} == pytest.approx(recorded), name
    status, out, _ = run_main("compare", *names)
    assert status == 0
    for name, recorded in expected["compare"].items():
        assert f"{recorded['val/accuracy']:.2%}" in out, name
        assert f"{recorded['test/accuracy']:.2%}" in out, name
        assert recorded["id"][:8] in out


def test_compare_finds_runs_by_a_parameter(run_main) -> None:
    status, out, _ = run_main("compare", "--where", "training.label_smoothing=0.1", "--json")
    assert status == 0
    assert [row["name"] for row in json.loads(out)] == ["smoothed"]


RUNS_WITH_MODELS = (
    "first", "second", "other-split", "best-weights", "smoothed", "compiled", "own-classes", "grid-done-001",
    "hyperband-cut-001", "seeds-000",
)  # fmt: skip


@pytest.mark.parametrize("run", RUNS_WITH_MODELS)
def test_a_stored_model_answers_as_it_did(run_main, expected, run) -> None:
    found = answers(run_main, ["images/three" if run == "own-classes" else "images/digits"], run)
    assert [answer["label"] for answer in found] == [label for label, _ in expected["answers"][run]]
    assert [answer["probability"] for answer in found] == pytest.approx(
        [probability for _, probability in expected["answers"][run]], abs=1e-4
    )


def test_answers_are_those_of_the_stored_predictions(run_main, client) -> None:
    """Of images that reach this net as they are: those of digits files would be centred first."""
    recorded = probabilities(client, run_named(client, "own-classes").info.run_id)
    found = answers(run_main, ["images/three"], "own-classes")
    names = ["a b", "it's", "null"]
    assert [answer["probability"] for answer in found] == pytest.approx(recorded.max(1), abs=ROUNDING)
    assert [names.index(answer["label"]) for answer in found] == recorded.argmax(1).tolist()


def test_the_champion_answers_as_the_run_that_was_promoted(run_main, old, client, expected) -> None:
    assert list(old.glob("mlruns/artifacts/digits/models/*/artifacts/registered_model_meta")), "it was used before"
    champion = client.get_model_version_by_alias("mnist_exp", "champion")
    assert (str(champion.version), champion.run_id) == ("2", run_named(client, "second").info.run_id)
    found = answers(run_main, ["images/digits"], "models:/mnist_exp@champion")
    assert [answer["probability"] for answer in found] == pytest.approx(
        [probability for _, probability in expected["answers"]["second"]], abs=1e-4
    )


@pytest.mark.parametrize("run", ["killed", "diverged", "raised"])
def test_a_run_without_a_model_is_refused(run_main, images, run, expected) -> None:
    for command in (["predict", images[0], "--run", run], ["reproduce", run], ["promote", run]):
        status, _, err = run_main(*command)
        assert status == 1, command
        assert run in err
        assert expected["runs"][run] in err


def test_a_model_is_exported(run_main, client, images, tmp_path) -> None:
    import keras

    status, _, err = run_main("export", "second", "--to", str(tmp_path / "net.h5"))
    assert status == 0, err
    pixels = np.stack([np.asarray(Image.open(path))[..., None] for path in images])
    found = keras.models.load_model(tmp_path / "net.h5", compile=False).predict(pixels, verbose=0)
    recorded = probabilities(client, run_named(client, "second").info.run_id)
    assert found == pytest.approx(recorded, abs=ROUNDING)


def test_each_sweep_says_how_it_is_doing(run_main, client, expected) -> None:
    for name, sweep in expected["sweeps"].items():
        status, out, err = run_main("sweep", "status", name)
        assert status == 0, err
        assert name in out
        assert run_named(client, name).info.run_id[:8] in out
        assert sweep["status"] in out
        assert f" {len([t for t in sweep['trials'].values() if t['status'] in ('FINISHED', 'FAILED')])} " in out
        scores = scores_of_the_longest(trials_of(client, run_named(client, name)))
        if scores:
            best = min(scores) if name == "random-done" else max(scores)  # the loss of one, the accuracy of others
            assert f"{best:.4f}" in out, name


def test_a_plan_knows_what_was_trained_before(run_main, client) -> None:
    overrides = sweep_file(client, "grid-done")["overrides"]
    status, out, err = run_main("-m", *overrides, "sweep.plan=true")
    assert status == 0, err
    (line,) = (line for line in out.splitlines() if "earlier sweep" in line)
    assert "4 " in line


def test_every_recorded_target_can_be_imported(old, client, expected, monkeypatch) -> None:
    configs = [yaml.safe_load(path.read_text()) for path in old.glob("mlruns/artifacts/*/*/artifacts/config.yaml")]
    for name in expected["sweeps"]:
        configs += [base["config"] for base in sweep_file(client, name)["configs"].values()]
    recorded = {
        section["_target_"]
        for config in configs
        for section in config.values()
        if isinstance(section, dict) and "_target_" in section
    }
    assert {"my_net.net", "mnist_exp.models.resnet", "mnist_exp.data.npz"} <= recorded
    monkeypatch.syspath_prepend(old)
    for target in sorted(recorded | set(expected["targets"])):
        module, _, name = target.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name)), target


def sweep_file(client: MlflowClient, name: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(file_of(run_named(client, name), "sweep.json"))
    return found
