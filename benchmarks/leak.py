"""What a split that ignores groups hides: validation accuracy with and without dataset.group, against new cameras.

python benchmarks/leak.py --seeds 5
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "tutorials"))

from make_photos import draw_photos

import mnist_exp
from mnist_exp.data import folder
from mnist_exp.training.evaluate import evaluate

GROUPS = {"without dataset.group": [], "with dataset.group": ['dataset.group="camera_([0-9]+)"']}
NEW = range(100, 140)  # cameras of which no net has seen a photo


def main(seeds: int, epochs: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        draw_photos(Path("photos"))
        draw_photos(Path("new"), count=1000, cameras=NEW, seed=1)
        new = folder("new").train
        for words, group in GROUPS.items():
            validated, truly = [], []
            for seed in range(seeds):
                given = ["dataset=folder", "dataset.path=photos", f"dataset.seed={seed}", f"seed={seed}", *group]
                result = mnist_exp.run(*given, "model=cnn", f"training.epochs={epochs}", quiet=True)
                validated.append(result.metrics["val/accuracy"])
                truly.append(evaluate(result.load_model(), new, result.class_names).accuracy)
            means = f"validation {statistics.fmean(validated):.1%}, new cameras {statistics.fmean(truly):.1%}"
            gaps = [one - other for one, other in zip(validated, truly, strict=True)]
            print(f"{words}: {means}, too high by {100 * statistics.fmean(gaps):.1f} points", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    main(**vars(parser.parse_args()))
