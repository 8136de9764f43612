"""How many digits that are not MNIST's a run's model gets right: tests/drawings.py, and scikit-learn's 1,797 enlarged.

python benchmarks/drawings.py --run best
"""

import argparse
import os
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from drawings import drawings
from PIL import Image
from sklearn.datasets import load_digits

from mnist_exp.commands.predict import Predictor
from mnist_exp.config.schema import Tracking
from mnist_exp.tracking.store import connect_existing


def of_scikit_learn() -> list[tuple[Image.Image, int]]:
    """Dark on white, 160 x 160, as a scan would show them."""
    small, labels = load_digits(return_X_y=True)
    return [
        (Image.fromarray((255 - tile * (255 / 16)).astype("uint8")).resize((160, 160), Image.Resampling.BICUBIC), label)
        for tile, label in zip(small.reshape(-1, 8, 8), labels.tolist(), strict=True)
    ]


def main(run: str, folder: str) -> None:
    store = connect_existing(Tracking(folder=folder))
    predictor = replace(Predictor.load(store, run), preparation="mnist")
    right: dict[str, list[bool]] = defaultdict(list)
    given = [(one.image, one.label, one.convention) for one in drawings()]
    given += [(image, label, "scikit-learn") for image, label in of_scikit_learn()]
    answers = predictor.predict([predictor.tile(image.convert("RGBA")) for image, _, _ in given])
    for (_, label, kind), answer in zip(given, answers, strict=True):
        right[kind].append(answer.label == str(label))
        if kind != "scikit-learn":
            right["all drawings"].append(answer.label == str(label))
    print(predictor.run.label)
    for kind, found in right.items():
        print(f"{kind}: {sum(found)} of {len(found)}, {sum(found) / len(found):.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="best")
    parser.add_argument("--folder", default="mlruns")
    chosen = parser.parse_args()
    main(chosen.run, chosen.folder)
