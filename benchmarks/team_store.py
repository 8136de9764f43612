"""Seconds for `compare`, `best`, `sweep status` and the UI's runs table on PostgreSQL behind MLflow's server.

pip install -e ".[cluster]" "psycopg[binary]" && python benchmarks/team_store.py --runs 100000

The runs are copies of one small run, written straight into the database, each with another validation accuracy; 200 of
them are the trials of a sweep.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psycopg
import requests
from services import Mlflow, Postgres
from team import made

import mnist_exp
from mnist_exp.commands.compare import compare
from mnist_exp.commands.sweep import read_progress
from mnist_exp.config.compose import compose
from mnist_exp.config.objective import Objective
from mnist_exp.config.schema import Tracking
from mnist_exp.sweep.study import define_study
from mnist_exp.tracking.find import find_run, search_runs
from mnist_exp.tracking.store import connect_existing
from mnist_exp.tracking.sweep_run import SweepRun

TABLES, TRIALS = ("runs", "params", "tags", "latest_metrics"), 200
ACCURACY = Objective.from_metric("val/accuracy")
SMALL = ("dataset=digits", "dataset.size=8", "training=smoke", "model.widths=[8]")


def multiply(uri: str, run_id: str, sweep_id: str, count: int) -> None:
    """Copies a run, its parameters, tags and newest metrics so many times, 200 of them as trials."""
    with psycopg.connect(uri.replace("+psycopg", ""), autocommit=True) as connection:
        for table in TABLES:
            query = "select column_name from information_schema.columns where table_name = %s order by ordinal_position"
            columns = [f'"{name}"' for (name,) in connection.execute(query, [table])]
            chosen = [
                {'"run_uuid"': "lpad(to_hex(n), 32, '0')", '"start_time"': "start_time - n"}.get(name, name)
                for name in columns
            ]
            connection.execute(
                f"insert into {table} ({', '.join(columns)}) select {', '.join(chosen)} from {table}, "
                f"generate_series(1, {count}) n where run_uuid = '{run_id}'"
            )
        connection.execute("update latest_metrics set value = random() where key = 'val/accuracy'")
        trials = f"lpad(to_hex(n), 32, '0') from generate_series(1, {TRIALS}) n"
        connection.execute(f"update tags set value = 'trial' where key = 'kind' and run_uuid in (select {trials})")
        for key, value in {"sweep": f"'{sweep_id}'", "trial": "n::text", "values": "'{}'"}.items():
            connection.execute(f"insert into tags (key, value, run_uuid) select '{key}', {value}, {trials}")
        connection.execute(
            "insert into latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
            f"select 'score', random(), 0, 0, false, {trials}"
        )
        connection.execute("vacuum analyze")  # as PostgreSQL does by itself within minutes


def timed(what: str, call: Callable[[], object]) -> None:
    """First time, and the median of three more."""
    spent = []
    for _ in range(4):
        begun = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begun)
    print(f"{what}: {spent[0]:.2f} s at first, then {statistics.median(spent[1:]):.2f} s", flush=True)


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Postgres(made(folder / "p")) as postgres, Mlflow(made(folder / "m"), postgres.uri) as server:
            os.chdir(made(folder / "work"))
            tracking = Tracking(enabled=True, uri=server.uri, experiment="digits", folder="mlruns")
            run = mnist_exp.run(*SMALL, f"tracking.uri={server.uri}", quiet=True)
            store = connect_existing(tracking)
            fixed = [*SMALL, "sweep.max_trials=300"]
            study = define_study(replace(compose(fixed), overrides=(*fixed, "model.dropout=interval(0,0.5)")))
            record = SweepRun.create(store, "digits", "study", study.to_record())
            begun = time.perf_counter()
            multiply(postgres.uri, str(run.run_id), record.id, count)
            print(f"{count:,} runs written in {time.perf_counter() - begun:.0f} s", flush=True)
            timed("compare", lambda: compare(store))
            timed("compare --where model=mlp", lambda: search_runs(store, ACCURACY, {"model": "mlp"}, 10))
            timed("best", lambda: find_run(store, "best"))
            timed("sweep status", lambda: read_progress(store, "study"))
            for order in ("attributes.start_time", "metrics.`val/accuracy`"):
                timed(f"the UI's runs by {order}", partial(page, server.uri, store.experiment_id("digits"), order))


def page(uri: str, experiment: str, order: str) -> None:
    """The hundred runs that the UI's table asks for."""
    query = {"experiment_ids": [experiment], "max_results": 100, "order_by": [f"{order} DESC"]}
    requests.post(f"{uri}/ajax-api/2.0/mlflow/runs/search", json=query, timeout=60).raise_for_status()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    main(parser.parse_args().runs)
