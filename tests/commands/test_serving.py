"""A champion in use: promoted, replaced by a better one, served by MLflow as docs/using.md describes it, and asked."""

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
from PIL import Image

from mnist_exp.commands.predict import Predictor
from mnist_exp.tracking.store import open_store

pytestmark = pytest.mark.servers
OPENER = build_opener(ProxyHandler({}))  # never through a proxy


def ask(url: str, body: object) -> tuple[int, dict]:
    request = Request(f"{url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with OPENER.open(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def rows(answer: dict) -> np.ndarray:
    """The probabilities in an answer, (n, classes)."""
    found = answer["predictions"]
    return np.array(found if isinstance(found, list) else found["probabilities"])


@pytest.fixture
def champion(run_main) -> str:
    assert run_main("promote", "poor")[0] == 0
    assert run_main("promote", "good")[0] == 0
    status, _, err = run_main("promote", "poor")
    assert status == 1, "a worse one was promoted"
    assert "must not be worse" in err
    return "models:/mnist_exp@champion"


@pytest.fixture
def server(runs, champion: str) -> Iterator[str]:
    folder, found = runs
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # MLflow starts uvicorn by name
    environment = {**os.environ, "MLFLOW_TRACKING_URI": str(found["good"].uri), "PATH": scripts}
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", champion]
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


def test_the_champion_answers_raw_pixels_as_predict_does_and_a_wrong_shape_with_the_rule(
    server, runs, run_main, champion, tmp_path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1))
    status, answer = ask(server, {"inputs": images.tolist()})
    assert status == 200, answer
    expected = runs[1]["good"].load_model().predict(images.astype("uint8"), verbose=0)
    assert (found := rows(answer)).shape == (3, 10)
    assert np.abs(found - expected).max() < 1e-5

    zero = np.full((40, 30), 255, np.uint8)
    zero[5:35, 5:25] = 0
    zero[10:30, 10:20] = 255
    Image.fromarray(zero).save(tmp_path / "zero.png")
    status, out, _ = run_main("predict", str(tmp_path / "zero.png"), "--run", champion, "--json")
    assert status == 0
    image = Image.open(tmp_path / "zero.png").convert("RGBA")
    tile = Predictor.load(open_store(runs[1]["good"].uri, runs[0]), champion).tile(image)
    status, answer = ask(server, {"inputs": [tile.pixels.tolist()]})
    assert rows(answer).max() == pytest.approx(json.loads(out)["probability"], abs=1e-5)
    assert str(rows(answer).argmax()) == json.loads(out)["label"]

    for scaled, rule in (
        (images / 255, "pixels must be whole numbers from 0 to 255"),
        (images / 127.5, "pixels must be whole numbers from 0 to 255"),
        ((images - 128) / 74, "out of bounds for uint8"),
    ):
        status, answer = ask(server, {"inputs": scaled.tolist()})
        assert status == 400
        assert rule in json.dumps(answer)

    status, answer = ask(server, {"inputs": images[:, :5].tolist()})
    assert status == 400
    assert "shape" in json.dumps(answer)
