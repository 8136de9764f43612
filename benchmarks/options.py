"""Each option of a training: how far compiled weights are from those of model.fit, and whether a training is resumed.

python benchmarks/options.py
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "training")]

import numpy as np  # noqa: E402
from test_build import OPTIONS, Fitted, make_splits  # noqa: E402


def main() -> None:
    splits = make_splits()
    print(f"{'option':40} {'compiled_epoch':15} {'largest difference':>20}  cut in two")
    for option, overrides in OPTIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            compiled = Fitted(splits, place / "on", *overrides)
            plain = Fitted(splits, place / "off", *overrides, "training.compiled_epoch=off")
            Fitted(splits, place / "cut", *overrides, epochs=2)
            resumed = Fitted(splits, place / "cut", *overrides)
        difference = np.abs(compiled.weights - plain.weights).max()
        same = "identical" if np.array_equal(resumed.weights, compiled.weights) else "different"
        print(f"{option:40} {compiled.history.mode:15} {difference:20.1e}  {same}", flush=True)


if __name__ == "__main__":
    main()
