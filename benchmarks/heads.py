"""Seconds of a trial that trains a head on the features of a frozen backbone, after the first, which computes them.

python benchmarks/heads.py --photos 1200 --trials 10
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "tutorials"))

from make_photos import draw_photos


def main(photos: int, trials: int, backbone: str, size: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        draw_photos(Path(place) / "photos", photos)
        weights = Path(place) / "backbone.weights.h5"
        code = f"import keras; keras.applications.{backbone}(include_top=False, weights=None, pooling='avg', "
        code += f"input_shape=({size}, {size}, 3)).save_weights({str(weights)!r})"
        subprocess.run([sys.executable, "-c", code], check=True)
        rates = ",".join(f"{0.001 * (1 + trial):.4f}" for trial in range(trials))
        command = [
            sys.executable, "-m", "mnist_exp", "-m", "dataset=folder", "dataset.path=photos", "model=pretrained",
            f"model.backbone={backbone}", f"model.size={size}", f"model.weights={weights}", "training.epochs=10",
            f"optimizer.learning_rate={rates}", "sweep.pruner=off",
        ]  # fmt: skip
        environment = {**os.environ, "XDG_CACHE_HOME": f"{place}/cache"}
        start = time.monotonic()
        subprocess.run(command, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
        whole = time.monotonic() - start
        code = (
            "import json, mlflow; client = mlflow.MlflowClient('sqlite:///mlruns/mlflow.db');"
            "runs = client.search_runs(['1'], \"tags.kind = 'trial'\", order_by=['attributes.start_time']);"
            "print(json.dumps([(r.info.end_time - r.info.start_time) / 1000 for r in runs]))"
        )
        found = subprocess.run([sys.executable, "-c", code], cwd=place, check=True, capture_output=True, text=True)
        seconds = json.loads(found.stdout.splitlines()[-1])
    print(f"{backbone}, {photos:,} photos, {size} pixels, 10 epochs: {whole:.0f} s for {trials} trials")
    print(f"first trial {seconds[0]:.1f} s; the others {', '.join(f'{one:.1f}' for one in sorted(seconds[1:]))} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=1200)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--backbone", default="MobileNetV3Small")
    parser.add_argument("--size", type=int, default=96)
    main(**vars(parser.parse_args()))
