"""The whole dense_100 run, everything tracked, against a plain Keras script without tracking: whole processes, in turn.

python benchmarks/whole_run.py mnist.npz --rounds 3
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN = Path(__file__).with_name("plain_dense_100.py")


def seconds(command: list[str], folder: str) -> float:
    """Wall time of a process; its output is shown where it fails."""
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - begun


def main(path: str, rounds: int) -> None:
    """Prints medians and the ratio round by round; the tracking store exists before the first counted run."""
    ours = [sys.executable, "-m", "mnist_exp", "experiment=dense_100", f"dataset.path={Path(path).resolve()}"]
    plain = [sys.executable, str(PLAIN), str(Path(path).resolve())]
    with tempfile.TemporaryDirectory() as folder:
        seconds([*ours[:3], "training=smoke"], folder)
        pairs = [(seconds(plain, folder), seconds(ours, folder)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"whole dense_100: plain script {slow:.1f} s, mnist_exp with tracking {fast:.1f} s, "
        f"{statistics.median(ratios):.2f} times faster ({ratios[0]:.2f} to {ratios[-1]:.2f}, {rounds} rounds)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="MNIST as npz")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    main(chosen.path, chosen.rounds)
