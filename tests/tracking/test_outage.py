"""A server that goes away in the middle of a run, for real."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from services import Mlflow

from mnist_exp.tracking import outbox
from mnist_exp.tracking.mlflow_run import MlflowRun
from mnist_exp.tracking.sqlite import DATABASE, create_database, uri_of
from mnist_exp.tracking.store import open_store
from mnist_exp.tracking.stored_run import fetch_run

pytestmark = pytest.mark.servers


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Mlflow]:
    create_database(tmp_path / DATABASE)
    with Mlflow(tmp_path, uri_of(tmp_path / DATABASE)) as found:
        yield found


def test_no_metric_is_lost_or_doubled_while_it_is_away(
    server: Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PAUSE", 0.5)
    store = open_store(server.uri, tmp_path / "mlruns")
    record = MlflowRun.create_run(store, tmp_path / "mlruns", "away", "run")
    for epoch in range(1, 10):
        if epoch == 3:
            server.stop()
        if epoch == 7:
            server.begin()
        record.log_metrics({"train/loss": 1 / epoch, "val/accuracy": epoch / 10}, step=epoch)
    assert record.undelivered is None
    server.stop()
    record.log_metrics({"val/loss": 0.5}, step=9)
    assert record.undelivered is not None
    server.begin()
    record.end("FINISHED")
    assert record.undelivered is None
    for key in ("train/loss", "val/accuracy"):
        assert [metric.step for metric in store.client.get_metric_history(record.id, key)] == list(range(1, 10))
    run = fetch_run(store, record.id)
    assert (run.status, run.metrics["val/loss"]) == ("FINISHED", 0.5)
