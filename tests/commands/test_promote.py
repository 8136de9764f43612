import json
import re

import pytest
from mlflow.exceptions import MlflowException

from mnist_exp.commands import promote as promoting
from mnist_exp.errors import TrackingError
from mnist_exp.tracking.registry import find_champion


def test_a_better_one_follows_and_a_worse_one_is_refused(run_main, store, runs) -> None:
    status, out, _ = run_main("promote", "poor")
    found, version = out.splitlines()
    assert (status, version) == (0, "models:/mnist_exp@champion is version 1")
    assert re.match(r"run  poor \(\w{8}\): digits \(digest \w{8}\), val/accuracy [\d.]+%, found by its name$", found)
    status, out, _ = run_main("promote", "good")
    assert status == 0
    assert "\nbetter against version 1: of 288 validation images" in out
    status, out, err = run_main("promote", "poor")
    assert (status, len(out.splitlines())) == (1, 1)
    assert "must not be worse than the champion" in err
    assert "--force" in err
    champion = store.client.get_model_version_by_alias("mnist_exp", "champion")
    assert (str(champion.version), champion.run_id) == ("2", runs[1]["good"].run_id)
    assert champion.tags["against_champion"] == "better"
    assert len(store.client.search_model_versions("name = 'mnist_exp'")) == 2  # history stays, and nothing was added


def test_the_champion_stays_the_version_that_it_is(run_main, store, runs) -> None:
    run_main("promote", "good")
    for extra in ((), ("--force",)):
        status, out, _ = run_main("promote", "good", *extra)
        assert (status, out.splitlines()[1]) == (
            0, "models:/mnist_exp@champion is version 1, which has the model of this run already; nothing was changed",
        )  # fmt: skip
    status, out, err = run_main("promote", "best", "--json")
    done = json.loads(out)
    assert (status, done["changed"], done["version"]) == (0, False, "1")
    assert done["run"]["id"] == runs[1]["good"].run_id
    assert err.startswith("run  good (")
    assert len(store.client.search_model_versions("name = 'mnist_exp'")) == 1


def test_force_promotes_it_all_the_same_and_keeps_the_test(run_main, store) -> None:
    run_main("promote", "good")
    status, out, _ = run_main("promote", "poor", "--force")
    assert status == 0
    assert "worse against version 1" in out
    assert store.client.get_model_version_by_alias("mnist_exp", "champion").tags["against_champion"] == "worse"
    status, out, _ = run_main("promote", "good", "--json")
    done = json.loads(out)
    assert (done["uri"], done["version"], done["before"]) == ("models:/mnist_exp@champion", "3", "2")
    assert done["test"].keys() == {"first_only", "second_only", "images", "p"}


def test_of_another_split_only_the_shared_validation_images_count(run_main, store, runs) -> None:
    run_main("promote", "good", "--name", "net")
    status, out, _ = run_main("promote", "elsewhere", "--name", "net", "--force")
    assert status == 0
    shared = int(re.search(r"of (\d+) validation images", out).group(1))
    assert 0 < shared < 288


def test_what_shares_no_validation_images_is_refused_unless_forced(run_main, store, monkeypatch) -> None:
    run_main("promote", "good")
    monkeypatch.setattr(promoting, "test_pair", lambda *predictions: None)
    status, out, err = run_main("promote", "poor")
    assert (status, len(out.splitlines())) == (1, 1)
    assert "have no validation images in common; train on the same split, or give --force" in err
    status, out, _ = run_main("promote", "poor", "--force")
    assert status == 0
    assert "\nnot compared with version 1: they have no validation images in common\n" in out


def test_a_store_that_is_away_is_not_taken_for_one_without_a_champion(store, monkeypatch) -> None:
    def away(*_):
        raise MlflowException("the server is away")

    assert find_champion(store, "nosuch") is None
    monkeypatch.setattr(store.client, "get_model_version_by_alias", away)
    with pytest.raises(TrackingError, match="the server is away"):
        find_champion(store, "nosuch")


def test_the_champion_answers(run_main, store, tmp_path) -> None:
    from PIL import Image, ImageDraw

    run_main("promote", "good")
    image = Image.new("L", (80, 100), 255)
    ImageDraw.Draw(image).ellipse((20, 15, 60, 85), outline=0, width=9)
    image.save(tmp_path / "zero.png")
    status, out, _ = run_main("predict", str(tmp_path / "zero.png"), "--run", "models:/mnist_exp@champion")
    assert status == 0
    assert out.startswith("run  good (")


def test_an_unfinished_run_is_refused(run_main, store, runs) -> None:
    run = store.client.create_run(store.experiment_id("digits"), run_name="half", tags={"kind": "run"})
    store.client.set_terminated(run.info.run_id, "KILLED")
    status, _, err = run_main("promote", "half")
    assert status == 1
    assert "must be FINISHED, but got 'KILLED'; choose a finished run" in err
