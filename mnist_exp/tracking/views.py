"""MLflow's page of an experiment, opened with our columns, order and charts.

MLflow keeps a view that is shared as a tag of the experiment, and opens it if its key stands in the address. The keys
of a view are those that its page writes itself, of MLflow 3.17.
"""

import json
from collections.abc import Iterator
from typing import Any

from mnist_exp.config.compose import BUNDLES, GROUPS
from mnist_exp.secrets import hide
from mnist_exp.tracking import tags
from mnist_exp.tracking.find import iterate_pages
from mnist_exp.tracking.store import Store, store_errors

KEY = "mnist_exp"
VIEW = f"mlflow.sharedViewState.{KEY}"
LIST = "/#/experiments?workflowType=machine_learning"  # without it MLflow opens its pages for language models
LOCAL = "http://127.0.0.1:5000"
COLUMNS = (
    *(f"metrics.`{name}`" for name in ("val/accuracy", "test/accuracy", "val/loss")),
    *(f"tags.`{name}`" for name in (tags.CHAMPION, tags.PROMOTED_BY)),
    *(f"params.`{group}`" for group in GROUPS if group not in (*BUNDLES, "executor", "sweep", "tracking")),
    *(f"params.`{key}`" for key in ("optimizer.learning_rate", "training.epochs", "seed")),
    "attributes.`Duration`",
)
# Sections of charts with the metrics that each chart shows by epoch.
CURVES = {
    "Accuracy": [["val/accuracy", "train/accuracy"]],
    "Loss": [["val/loss", "train/loss"], ["learning_rate"]],
}
BARS = {"Comparison": ["val/accuracy", "val/macro_f1", "val/cross_entropy", "test/accuracy"]}
IMAGES = {"Confusion matrices": "confusion_matrix"}


def address(experiment_id: str) -> str:
    """Returns the place of the prepared page on MLflow's server."""
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={KEY}&workflowType=machine_learning"


def page_of_run(store: Store, experiment_id: str, run_id: str) -> str:
    """Returns the address of a run's page; for a local store that of `python -m mnist_exp ui` on its usual port."""
    server = hide(store.uri).rstrip("/") if store.uri.startswith("http") else LOCAL
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def prepare_views(store: Store) -> list[tuple[str, str]]:
    """Gives each experiment its view. Returns the names of the experiments and the places of their pages."""
    text = describe_view()
    with store_errors(store.uri):
        found = list(iterate_pages(store.client.search_experiments))
        for experiment in found:
            if experiment.tags.get(VIEW) != text:
                store.client.set_experiment_tag(experiment.experiment_id, VIEW, text)
    return [(one.name, address(one.experiment_id)) for one in found]


def describe_view() -> str:
    """Returns the view as MLflow keeps it."""
    charts = list(_charts())
    sections = dict.fromkeys(chart["metricSectionId"] for chart in charts)
    return json.dumps(
        {
            "orderByKey": "metrics.`val/accuracy`",
            "orderByAsc": False,
            "searchFilter": "",
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "selectedColumns": list(COLUMNS),
            "runsExpanded": {},
            "runsPinned": [],
            "compareRunCharts": charts,
            "compareRunSections": [_section(one) for one in sections],
            "isAccordionReordered": True,
            "runsHiddenMode": "FIRST_10_RUNS",
            "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        }
    )


def _charts() -> Iterator[dict[str, Any]]:
    for section, charts in CURVES.items():
        for metrics in charts:
            yield _chart("LINE", section, metrics[0], metricKey=metrics[0], selectedMetricKeys=metrics)
    for section, names in BARS.items():
        for name in names:
            yield _chart("BAR", section, name, metricKey=name)
    for section, image in IMAGES.items():
        yield _chart("IMAGE", section, image, imageKeys=[image], step=0)


def _section(name: str) -> dict[str, Any]:
    """A section of charts. One of pictures has room for the parameters that MLflow writes above each picture."""
    size = {"columns": 1, "cardHeight": 1000} if name in IMAGES else {"columns": 2}
    return {"uuid": name, "name": name, "display": True, "isReordered": True, **size}


def _chart(kind: str, section: str, name: str, **more: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": f"{kind}-{name}",
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "displayName": "",
        **more,
    }
