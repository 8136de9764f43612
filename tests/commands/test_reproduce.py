import json

import pytest

import mnist_exp
from mnist_exp.tracking.find import list_runs


@pytest.mark.parametrize("net", [["model=mlp", "model.widths=[16]"], ["model=cnn", "model.blocks=[[4]]"]])
def test_with_the_deterministic_switch_a_run_is_reproduced_to_the_bit(run_main, runs, net, monkeypatch) -> None:
    monkeypatch.chdir(runs[0])
    first = mnist_exp.run(
        "dataset=digits", "dataset.size=8", "training=smoke", *net, "training.deterministic=true", quiet=True
    )
    status, out, err = run_main("reproduce", first.run_id)
    assert status == 0, err
    assert "verdict: identical" in out
    assert "largest difference of a weight 0" in out


def test_the_result_as_plain_values(run_main) -> None:
    status, out, err = run_main("reproduce", "poor", "--json")
    plain = json.loads(out)
    assert (status == 1) == (plain["verdict"] == "different"), err
    assert plain.keys() == {"changes", "name", "run_id", "largest", "accuracies", "test", "verdict", "run"}
    assert (plain["name"], plain["changes"]) == ("poor-again", {})


def test_another_result_is_called_different(run_main, runs, monkeypatch) -> None:
    from mnist_exp import experiment

    plain = experiment.prepare_keras
    monkeypatch.setattr(experiment, "prepare_keras", lambda seed, settings: plain(seed + 1, settings))
    status, out, _ = run_main("reproduce", "good")
    assert status == (0 if "within tolerance" in out else 1)
    assert "verdict: identical" not in out
    assert "only the new run has" in " ".join(out.split())


def test_surroundings_are_compared_without_training(run_main, store, runs) -> None:
    before = len(list_runs(store, ""))
    status, out, _ = run_main("reproduce", "good", "--check")
    assert status == 0
    assert "the same as in the run: versions, hardware" in out
    store.client.set_tag(runs[1]["good"].run_id, "version.keras", "2.0")
    status, out, _ = run_main("reproduce", "good", "--check")
    assert status == 1
    assert "version.keras: 2.0 then, " in out
    status, out, _ = run_main("reproduce", "good", "--check", "--json")
    assert (status, json.loads(out)["changes"].keys()) == (1, {"version.keras"})
    assert len(list_runs(store, "")) == before


def test_what_was_not_recorded_is_not_called_the_same(run_main, store, runs) -> None:
    run = runs[1]["good"].run_id
    for key in store.client.get_run(run).data.tags:
        if key.startswith(("code.", "git.", "hardware.", "system", "mlflow.source.git")):
            store.client.delete_tag(run, key)
    status, out, _ = run_main("reproduce", "good", "--check")
    assert status == 0
    assert "the same as in the run: versions\n" in out
    assert "not recorded by the run: hardware, the code of mnist_exp, the commit of the current folder" in out


def test_other_data_are_refused(run_main, monkeypatch) -> None:
    from mnist_exp.commands import reproduce as reproducing

    plain = reproducing.load_splits
    monkeypatch.setattr(reproducing, "load_splits", lambda config: plain(config.with_values({"dataset.size": 9})))
    status, _, err = run_main("reproduce", "poor")
    assert status == 1
    assert "dataset.digest must be that of the run" in err
