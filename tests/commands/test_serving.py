"""MLflow's own model server on one of our models, as docs/using.md describes it."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import psutil
import pytest

OPENER = build_opener(ProxyHandler({}))  # never through a proxy


def ask(url: str, body: object) -> tuple[int, dict]:
    request = Request(f"{url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with OPENER.open(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture
def server(runs) -> Iterator[str]:
    folder, found = runs
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # MLflow starts uvicorn by name
    environment = {**os.environ, "MLFLOW_TRACKING_URI": str(found["good"].uri), "PATH": scripts}
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"runs:/{found['good'].run_id}/model"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            begun = time.monotonic()
            while time.monotonic() - begun < 120:
                assert process.poll() is None, (folder / "server.log").read_text()
                with suppress(URLError, ConnectionError), OPENER.open(f"http://127.0.0.1:{port}/ping", timeout=2):
                    break
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for one in family:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()


def test_raw_pixels_are_answered_with_probabilities_and_a_wrong_shape_with_the_rule(server, runs) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1))
    status, answer = ask(server, {"inputs": images.tolist()})
    assert status == 200, answer
    expected = runs[1]["good"].load_model().predict(images.astype("uint8"), verbose=0)
    found = answer["predictions"]
    assert np.abs(np.array(found if isinstance(found, list) else found["probabilities"]) - expected).max() < 1e-5
    status, answer = ask(server, {"inputs": images[:, :5].tolist()})
    assert status == 400
    assert "shape" in json.dumps(answer)
