"""python -m mnist_exp ui: MLflow's pages on the store of this folder, on 127.0.0.1."""

import os
import subprocess
import sys
from pathlib import Path

import click

from mnist_exp.tracking.store import open_store


@click.command(help=__doc__)
@click.option("--port", default=5000, show_default=True)
@click.option("--folder", default="mlruns", show_default=True, help="The folder of the local store.")
@click.option("--uri", help="Another store; MLFLOW_TRACKING_URI counts too.")
def command(port: int, folder: str, uri: str | None) -> None:
    """Serves the pages until Ctrl-C."""
    store = open_store(uri, Path(folder).resolve())
    click.echo(f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning   (Ctrl-C ends)")
    server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri, "--host", "127.0.0.1"]
    server += ["--port", str(port), "--workers", "1"]
    if store.artifacts:
        server += ["--default-artifact-root", store.artifacts.as_uri()]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # 2 processes in place of 10
    subprocess.run(server, env=quiet, check=False)
