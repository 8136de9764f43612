"""Seconds until `compare` has its first screen, and `best` its run, in a store of many runs, beyond the imports.

python benchmarks/compare_many.py --runs 10000

The runs are copies of one small run, written straight into the database, each with another validation accuracy.
"""

import argparse
import os
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import mlflow.keras  # noqa: F401

import mnist_exp
from mnist_exp.commands.compare import compare
from mnist_exp.config.schema import Tracking
from mnist_exp.tracking.find import find_run
from mnist_exp.tracking.store import connect_existing

TABLES = {"runs": "run_uuid", "params": "run_uuid", "tags": "run_uuid", "latest_metrics": "run_uuid"}


def multiply(database: Path, run_id: str, count: int) -> None:
    """Copies a run, its parameters, tags and newest metrics so many times."""
    with closing(sqlite3.connect(database)) as connection:
        for table, key in TABLES.items():
            columns = [row[1] for row in connection.execute(f"pragma table_info({table})") if row[1] != key]
            named = ", ".join(columns)
            rows = connection.execute(f"select {named} from {table} where {key} = ?", [run_id]).fetchall()
            places = ", ".join("?" * (len(columns) + 1))
            connection.executemany(
                f"insert into {table} ({key}, {named}) values ({places})",
                ((f"{number:032x}", *row) for number in range(count) for row in rows),
            )
        connection.execute("update latest_metrics set value = abs(random() % 1000000) / 1e6 where key = 'val/accuracy'")
        connection.commit()


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        given = ("dataset=digits", "dataset.size=8", "training=smoke", "model.widths=[8]")
        run = mnist_exp.run(*given, quiet=True)
        assert run.run_id is not None
        multiply(Path("mlruns/mlflow.db"), run.run_id, count)
        store = connect_existing(Tracking(folder="mlruns"))
        for what, search in {"compare": lambda: compare(store), "best": lambda: find_run(store, "best")}.items():
            begun = time.perf_counter()
            search()
            print(f"{what} among {count + 1:,} runs: {time.perf_counter() - begun:.2f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    main(parser.parse_args().runs)
