import json

import pytest


@pytest.mark.parametrize(
    ("kind", "name"), [("keras", "mnist.keras"), ("h5", "mnist.h5"), ("savedmodel", "saved_model")]
)
def test_what_is_written_answers_as_the_model_does(run_main, runs, kind, name, tmp_path) -> None:
    import numpy as np

    to = tmp_path / name
    status, out, err = run_main("export", "good", "--format", kind, "--to", str(to))
    assert status == 0, err
    assert "the same answers on 288 validation images, largest difference of a probability" in " ".join(out.split())
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)).astype("float32")
    expected = runs[1]["good"].load_model().predict(images, verbose=0)
    if kind != "savedmodel":
        import keras

        found = keras.models.load_model(to, compile=False).predict(images, verbose=0)
    else:
        import tensorflow as tf

        loaded = tf.saved_model.load(str(to))
        found = loaded.serve(images).numpy()
    assert np.abs(found - expected).max() < 1e-5


def test_the_comparison_as_plain_values(run_main, tmp_path) -> None:
    _, out, _ = run_main("export", "good", "--to", str(tmp_path / "net.h5"), "--json")
    plain = json.loads(out)
    assert plain.pop("largest") < 1e-5
    assert plain.pop("run")["name"] == "good"
    assert plain == {"path": str(tmp_path / "net.h5"), "images": 288, "source": "validation images"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["good", "--to", "mlruns"], "already exists; choose another path with --to"),
        (["good", "--to", "no/where/mnist.h5"], "is not a folder"),
        (["nobody"], "must be an id"),
    ],
)
def test_nothing_is_overwritten(run_main, arguments, said) -> None:
    status, _, err = run_main("export", *arguments)
    assert status == 1
    assert said in err
