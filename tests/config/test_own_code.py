"""A net with layers of the user's own, used by other processes than the one that trained it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import processes
import pytest
from own_layers import OWN
from PIL import Image

import mnist_exp
from mnist_exp.config.own_code import digest_own_code, import_own_objects, own_files
from mnist_exp.config.recorded import ExecutionWhitelist, find_own_file
from mnist_exp.errors import TrackingError
from mnist_exp.tracking.find import list_runs
from mnist_exp.tracking.registry import read_metadata
from mnist_exp.tracking.store import open_store
from mnist_exp.training import contract

NET = ("model=custom", "model._target_=my_own_layers.net", "training=smoke")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, new_database: Path) -> Iterator[Path]:
    """A folder with the code of such a net, a run of it, and an image."""
    import shutil

    folder = tmp_path_factory.mktemp("own")
    (folder / "my_own_layers.py").write_text(OWN)
    (folder / "mlruns").mkdir()
    shutil.copy(new_database, folder / "mlruns")
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 12:16] = 255
    Image.fromarray(pixels).save(folder / "one.png")
    trained = processes.run(*NET, "name=own", cwd=folder, prepare=do_not_start_a_process)
    assert trained.returncode == 0, trained.stderr
    return folder


def do_not_start_a_process() -> None:
    """tests/training/test_contract.py starts one; here each command is a process of its own."""
    contract._load_in_new_process = lambda *args: None


def test_another_process_predicts_with_it_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    done = processes.run("predict", "one.png", "--run", "own", cwd=home, environment={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("one.png ")
    assert list(tmp_path.iterdir()) == []


def test_it_is_exported_with_the_same_answers(home: Path, tmp_path: Path) -> None:
    done = processes.run("export", "own", "--to", str(tmp_path / "own.h5"), cwd=home)
    assert done.returncode == 0, done.stderr
    assert "the same answers on 288 validation images" in done.stdout


def serve(uri: str, run_id: str) -> None:
    """What MLflow's server does with a model."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    print(json.dumps(model.predict(np.full((2, 28, 28, 1), 200, np.uint8)).sum(axis=1).tolist()))


def test_mlflows_server_has_its_code_in_any_folder(home: Path, tmp_path: Path) -> None:
    store = open_store(None, home / "mlruns")
    (run,) = list_runs(store, "tags.kind = 'run'")
    done = processes.call(serve, store.uri, run.id, cwd=tmp_path)
    assert done.wait() == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx([1, 1])
    assert read_metadata(store.uri, run.id)["own_code"] == {
        "Gain": "my_own_layers:Gain",
        "mine>Shift": "my_own_layers:Shift",
        "bend": "my_own_layers:bend",
    }


def test_elsewhere_it_is_refused_with_the_module_that_is_missing(home: Path, tmp_path: Path) -> None:
    command = ("predict", str(home / "one.png"), "--run", "own", "--folder", str(home / "mlruns"))
    done = processes.run(*command, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "error: the model needs Gain of the module my_own_layers, which is not in the current folder's code; start the "
        "command in the folder that holds my_own_layers\n",
    )


def test_the_winner_of_a_sweep_is_scored(home: Path) -> None:
    sweep = ("-m", *NET, "+model.factor=2.0,3.0", "training.epochs=1")
    done = processes.run(*sweep, cwd=home, prepare=do_not_start_a_process)
    assert done.returncode == 0, done.stderr
    (parent,) = list_runs(open_store(None, home / "mlruns"), "tags.kind = 'sweep'")
    assert "test/accuracy" in parent.metrics
    assert not (home / "mlruns" / "running").exists()


def test_code_is_found_where_python_looks_for_it_below_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("src", "mlruns", "copied", "venv/site-packages", "../outside"):
        (tmp_path / "home" / folder).mkdir(parents=True)
        (tmp_path / "home" / folder / "my_code.py").write_text("")
    (tmp_path / "home" / "copied" / "mlflow.db").touch()
    monkeypatch.chdir(tmp_path / "home")
    assert find_own_file("my_code") is None
    assert find_own_file("src.my_code") == tmp_path / "home" / "src" / "my_code.py"
    for folder in ("mlruns", "copied", "venv/site-packages", "../outside"):
        monkeypatch.syspath_prepend(tmp_path / "home" / folder)
        assert find_own_file("my_code") is None
    monkeypatch.syspath_prepend(tmp_path / "home" / "src")
    assert find_own_file("my_code") == tmp_path / "home" / "src" / "my_code.py"
    assert ExecutionWhitelist(stores=(tmp_path / "home" / "src",)).allows("my_code.net") is False


@pytest.mark.parametrize("place", ["os:system", "shutil:rmtree", "no_such_module:X", "__main__:X", "numpy:load"])
def test_a_model_names_no_code_outside_the_current_folder(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrackingError, match="which is not in the current folder's code"):
        import_own_objects({"Gain": place})


def test_a_layer_that_was_renamed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_new_layers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert import_own_objects({"Gain": "my_new_layers:Gain"})["Gain"].__name__ == "Gain"
    with pytest.raises(TrackingError, match="the model needs Loss, which my_new_layers lacks"):
        import_own_objects({"Loss": "my_new_layers:Loss"})


def test_a_net_of_keras_layers_names_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = mnist_exp.run("training=smoke", "model.widths=[4]", quiet=True)
    assert "own_code" not in read_metadata(result.uri, str(result.run_id))


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module, what it imports, and what it does not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    (tmp_path / "nets_of_mine.py").write_text("import numpy\nfrom parts_of_mine import blocks as used\n")
    (tmp_path / "parts_of_mine").mkdir()
    (tmp_path / "parts_of_mine/__init__.py").write_text("from . import other\n")
    (tmp_path / "parts_of_mine/blocks.py").write_text("WIDTH = 3\n")
    (tmp_path / "parts_of_mine/other.py").write_text("def f(:\n")
    (tmp_path / "parts_of_mine/unused.py").write_text("")
    return tmp_path


def test_the_code_that_a_config_names_is_found_with_what_it_imports(code: Path) -> None:
    assert own_files(["nets_of_mine.wide"]).keys() == {
        "nets_of_mine", "parts_of_mine", "parts_of_mine.blocks", "parts_of_mine.other",
    }  # fmt: skip
    assert own_files(["keras.losses.Huber", "mnist_exp.models.mlp", "no where", ""]) == {}


def test_its_digest_changes_with_what_is_used_alone(code: Path) -> None:
    config = {
        "model": {"_target_": "nets_of_mine.wide"},
        "training": {"callbacks": [{"_target_": "keras.callbacks.X"}]},
    }
    before = digest_own_code(config)
    assert before is not None
    (code / "parts_of_mine/unused.py").write_text("A = 1\n")
    (code / "somewhere.py").write_text("A = 1\n")
    assert digest_own_code(config) == before
    (code / "parts_of_mine/blocks.py").write_text("WIDTH = 4\n")
    assert digest_own_code(config) != before
    assert digest_own_code({"model": {"_target_": "mnist_exp.models.mlp"}}) is None


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("keras.losses.CategoricalFocalCrossentropy", True),
        ("keras.metrics.F1Score", True),
        ("keras.optimizers.Lion", True),
        ("keras.optimizers.schedules.PolynomialDecay", True),
        ("keras.layers.RandomFlip", True),
        ("keras.callbacks.EarlyStopping", True),
        ("keras.losses.deserialize", False),
        ("keras.losses.Huber.from_config", False),
        ("keras.callbacks.ModelCheckpoint", False),  # writes files
        ("keras.callbacks.CSVLogger", False),
        ("keras.callbacks.RemoteMonitor", False),
        ("keras.layers.Lambda", False),
        ("keras.layers.TFSMLayer", False),  # loads what it is told
        ("keras.utils.get_file", False),
        ("keras.src.losses.losses.Huber", False),
    ],
)
def test_a_recorded_config_may_name_what_only_computes(target: str, allowed: bool) -> None:
    assert ExecutionWhitelist().allows(target) is allowed
