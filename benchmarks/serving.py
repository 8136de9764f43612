"""Latency of `mlflow models serve` on the champion of a store: one image, and a hundred in one request.

python benchmarks/serving.py mlruns --requests 200
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import requests

from mnist_exp.tracking.sqlite import DATABASE, uri_of

SHAPE = (28, 28, 1)


def milliseconds(session: requests.Session, url: str, images: int, count: int) -> list[float]:
    body = json.dumps({"inputs": np.random.default_rng(0).integers(0, 256, (images, *SHAPE)).tolist()})
    spent = []
    for _ in range(count):
        begun = time.perf_counter()
        answer = session.post(url, body, headers={"Content-Type": "application/json"}, timeout=60)
        answer.raise_for_status()
        spent.append(1000 * (time.perf_counter() - begun))
    return sorted(spent)


def main(folder: Path, model: str, count: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri_of(folder.resolve() / DATABASE), "PATH": scripts}
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    begun = time.perf_counter()
    command += ["-p", str(port), "--workers", "1"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    session = requests.Session()
    session.trust_env = False  # never through a proxy
    try:
        while server.poll() is None:
            with suppress(requests.ConnectionError):
                session.get(f"http://127.0.0.1:{port}/ping", timeout=5).raise_for_status()
                break
            time.sleep(0.2)
        print(f"ready after {time.perf_counter() - begun:.0f} s")
        url = f"http://127.0.0.1:{port}/invocations"
        milliseconds(session, url, 1, 5)
        for images in (1, 100):
            spent = milliseconds(session, url, images, count)
            median, most = statistics.median(spent), spent[int(0.95 * count)]
            print(f"{images} images a request: median {median:.0f} ms, 95% within {most:.0f} ms")
    finally:
        for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        server.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="mlruns")
    parser.add_argument("--model", default="models:/mnist_exp@champion")
    parser.add_argument("--requests", type=int, default=200)
    chosen = parser.parse_args()
    main(chosen.folder, chosen.model, chosen.requests)
