import json
import shutil
from pathlib import Path

import pytest

from mnist_exp.tracking.store import Store, open_store
from mnist_exp.tracking.views import VIEW, describe_view, page_of_run, prepare_views


@pytest.fixture
def store(tmp_path: Path, new_database: Path) -> Store:
    (tmp_path / "mlruns").mkdir()
    shutil.copy(new_database, tmp_path / "mlruns")
    return open_store(None, tmp_path / "mlruns")


def test_every_experiment_gets_the_view_and_keeps_its_other_tags(store):
    mine = store.experiment_id("mine", {"note": "kept"})
    pages = dict(prepare_views(store))
    experiment = store.client.get_experiment(mine)
    assert experiment.tags == {"note": "kept", VIEW: describe_view()}
    assert pages["mine"] == f"/#/experiments/{mine}/runs?viewStateShareKey=mnist_exp&workflowType=machine_learning"


def test_a_view_of_an_earlier_version_is_replaced_and_the_same_one_is_not_written_again(store, monkeypatch):
    mine = store.experiment_id("mine")
    store.client.set_experiment_tag(mine, VIEW, "{}")
    prepare_views(store)
    assert store.client.get_experiment(mine).tags[VIEW] == describe_view()
    monkeypatch.setattr(store.client, "set_experiment_tag", None)
    prepare_views(store)


def test_the_best_run_comes_first_and_the_choices_are_columns():
    view = json.loads(describe_view())
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`val/accuracy`", False)
    for column in (
        "metrics.`val/loss`",
        "tags.`champion`",
        "tags.`promoted_by`",
        "params.`model`",
        "params.`optimizer`",
    ):
        assert column in view["selectedColumns"]
    sections = {section["uuid"] for section in view["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} == sections
    assert len({chart["uuid"] for chart in view["compareRunCharts"]}) == len(view["compareRunCharts"])
    assert [chart["imageKeys"] for chart in view["compareRunCharts"] if chart["type"] == "IMAGE"] == [
        ["confusion_matrix"]
    ]


@pytest.mark.parametrize(
    ("uri", "server"),
    [
        ("sqlite:////somewhere/mlflow.db", "http://127.0.0.1:5000"),
        ("http://tracker:8080/", "http://tracker:8080"),
    ],
)
def test_a_run_has_a_page_on_the_server_or_on_the_usual_port(uri, server):
    page = page_of_run(Store(uri, None, None), "3", "abc")  # type: ignore[arg-type]
    assert page == f"{server}/#/experiments/3/runs/abc?workflowType=machine_learning"
