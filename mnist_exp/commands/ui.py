"""python -m mnist_exp ui: MLflow's pages on the store of this folder, on 127.0.0.1."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from mnist_exp.commands.options import HOST, choose_port, is_listening, port_option, until_stopped, with_tracking
from mnist_exp.config.schema import Tracking
from mnist_exp.errors import Problem, TrackingError
from mnist_exp.log import hide_library_output
from mnist_exp.tracking.store import Store, connect_existing, locate
from mnist_exp.tracking.views import LIST, prepare_views


@click.command(help=__doc__)
@port_option(5000)
@with_tracking
def command(port: int, settings: Tracking) -> None:
    """Serves the pages until Ctrl-C."""
    chosen = locate(settings.uri, Path(settings.folder).resolve())
    if chosen.startswith("http"):
        pages = []
        with hide_library_output(), suppress(TrackingError):  # its address is of use, also if it is away
            pages = prepare_views(connect_existing(settings))
        _print_pages(chosen.rstrip("/"), pages)
        return
    with hide_library_output():
        store = connect_existing(settings)
        pages = prepare_views(store)
    port = choose_port(port)
    with until_stopped(), _server(store, port) as server:
        while server.poll() is None and not is_listening(port):
            time.sleep(0.2)
        if server.poll() is None:
            _print_pages(f"http://{HOST}:{port}", pages, "  Ctrl-C ends")
        server.wait()


def _print_pages(server: str, pages: Sequence[tuple[str, str]], note: str = "") -> None:
    click.echo(f"{server}{LIST}{note}")
    for name, place in pages:
        click.echo(f"{name}: {server}{place}")


@contextmanager
def _server(store: Store, port: int) -> Iterator[subprocess.Popen]:
    """Runs MLflow's server while the block runs. Raises TrackingError if the server ends before."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    if store.artifacts:
        command += ["--default-artifact-root", store.artifacts.as_uri()]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # 2 processes in place of 10
    environment["MLFLOW_BACKEND_STORE_URI"] = store.uri  # everybody on this machine can read the arguments of a process
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield server
            log.seek(0)
            lines = "".join(log.readlines()[-10:])
            raise TrackingError(Problem("MLflow's server", f"ended with status {server.returncode}:\n{lines}"))
        finally:
            _end(server)


def _end(server: subprocess.Popen) -> None:
    import psutil

    try:
        family = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(family, timeout=5)[1]:
        process.kill()
