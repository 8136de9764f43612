"""Seconds a run spends on tracking, evaluation and artifacts (figures among them), imports apart, store existing.

python benchmarks/overhead.py mnist.npz --rounds 3
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = """
import mnist_exp, sys
import mlflow, tensorflow, matplotlib.figure, sklearn.metrics, sklearn.model_selection, mlflow.keras
result = mnist_exp.run("experiment=dense_100", "training.epochs=3", f"dataset.path={sys.argv[1]}", quiet=True)
print({part: round(result.seconds[part], 2) for part in ("tracking", "evaluation", "artifacts")})
print("together", round(sum(result.seconds[part] for part in ("tracking", "evaluation", "artifacts")), 2), "s")
"""


def main(path: str, rounds: int) -> None:
    """Prints the parts of each run; the first one creates the store and does not count."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            command = [sys.executable, "-c", RUN, str(Path(path).resolve())]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
            if number:
                print(done.stdout.strip())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="MNIST as npz")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    main(chosen.path, chosen.rounds)
