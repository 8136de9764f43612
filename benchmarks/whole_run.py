"""Whole runs, everything tracked, against less: whole processes, in turn.

python benchmarks/whole_run.py --rounds 5
python benchmarks/whole_run.py mnist.npz --rounds 3

Without a path, the default run on the digits against the imports of its libraries. With MNIST, experiment=dense_100
against a plain Keras script without tracking.
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
IMPORTS = "import tensorflow, keras, mlflow, sklearn"


def seconds(command: list[str], folder: str) -> float:
    """Wall time of a process; its output is shown where it fails."""
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - begun


def main(path: str | None, rounds: int) -> None:
    """Prints medians and the ratio round by round; store and program cache exist before the first counted run."""
    ours, other, names = [sys.executable, "-m", "mnist_exp"], [sys.executable, "-c", IMPORTS], ("digits", "imports")
    if path:
        data = str(Path(path).resolve())
        ours += ["experiment=dense_100", f"dataset.path={data}"]
        other, names = [sys.executable, str(PLAIN), data], ("dense_100", "a plain script")
    with tempfile.TemporaryDirectory() as folder:
        seconds([*ours, "training=smoke"] if path else ours, folder)
        pairs = [(seconds(ours, folder), seconds(other, folder)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    ran, compared = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"{names[0]}, everything tracked: {ran:.1f} s; {names[1]}: {compared:.1f} s; "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {rounds} rounds)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", help="MNIST as npz")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    main(chosen.path, chosen.rounds)
