import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from mnist_exp.tracking.find import find_run, list_runs
from mnist_exp.tracking.store import open_store
from mnist_exp.tracking.stored_run import StoredRun

ALL = {"samples", "learning_curves", "predictions", "confident_mistakes", "per_class", "architecture"}
ALL |= {"confusion_validation"}


def figures_of(store, run: StoredRun) -> set[str]:
    return {Path(file.path).stem for file in store.client.list_artifacts(run.id, "figures")}


def test_the_figures_of_a_run_are_drawn_again(run_main, home) -> None:
    assert run_main("dataset=digits", "dataset.size=8", "training=smoke", "model.widths=[8]", "name=new")[0] == 0
    store = open_store(None, home / "mlruns")
    run = find_run(store, "new")
    before = figures_of(store, run)
    assert before == ALL | {"confusion_test"}
    (folder,) = (home / "mlruns" / "artifacts").rglob(f"{run.id}/artifacts/figures")
    shutil.rmtree(folder)
    status, out, err = run_main("figures", "new")
    assert status == 0, err
    assert "8 figures are among the artifacts of new" in out
    assert figures_of(store, run) == before


def test_the_winner_of_a_sweep_has_all_and_another_trial_a_confusion_matrix_until_they_are_drawn(
    run_main, home
) -> None:
    net = ("dataset=digits", "dataset.size=8", "training=smoke", "sweep.sampler=random")
    assert run_main("-m", *net, "model.widths=[8],[64]", "sweep.name=two")[0] == 0
    store = open_store(None, home / "mlruns")
    best, other = sorted(list_runs(store, "tags.kind = 'trial'"), key=lambda run: -run.metrics["val/accuracy"])
    assert figures_of(store, best) == ALL
    assert figures_of(store, other) == {"confusion_validation"}
    path = store.client.download_artifacts(other.id, "figures/confusion_validation.png", str(home))
    with Image.open(path) as picture:
        assert min(picture.size) > 400
        assert len(picture.getcolors() or []) > 8
    status, out, _ = run_main("figures", other.name, "--json")
    assert status == 0
    plain = json.loads(out)
    assert {Path(figure).stem for figure in plain["figures"]} == ALL
    assert plain["run"]["name"] == other.name
    assert figures_of(store, other) == ALL


def test_other_data_are_refused(run_main, home) -> None:
    def write(seed: int) -> None:
        images = np.random.default_rng(seed).integers(0, 256, (60, 8, 8), dtype=np.uint8)
        np.savez(home / "mine.npz", x_train=images, y_train=np.arange(60) % 2)

    write(0)
    keys = ("dataset=npz", "dataset.path=mine.npz", "training=smoke", "model.widths=[4]", "name=mine")
    status, _, err = run_main(*keys)
    assert status == 0, err
    write(1)
    status, _, err = run_main("figures", "mine")
    assert status == 1
    assert "the data set must be those on which mine" in err
    assert "the validation images are others; put those data back" in err
