"""Going on from a finished run, and frozen layers."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from mnist_exp import run
from mnist_exp.cli import main
from mnist_exp.errors import TrackingError, TrainingError, UserError
from mnist_exp.tracking import tags
from mnist_exp.tracking.find import find_run, list_runs
from mnist_exp.tracking.registry import load_model, read_metadata
from mnist_exp.tracking.store import open_store
from mnist_exp.tracking.stored_run import fetch_run
from mnist_exp.training.parent import copy_weights, freeze_layers

SMALL = ["model.widths=[12,8]", "training.epochs=1", "training.batches=20"]


def net(*widths: int, classes: int = 3) -> keras.Model:
    keras.backend.clear_session()
    x = inputs = keras.Input((4,))
    for width in widths:
        x = layers.Dense(width, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="probabilities")(x))


def test_weights_of_the_same_shapes_are_copied_in_their_order() -> None:
    parent, model = net(5, 6), net(5, 6)
    assert copy_weights(model, parent) == []
    assert all(np.array_equal(one, other) for one, other in zip(model.get_weights(), parent.get_weights(), strict=True))


def test_other_classes_keep_their_own_last_layer() -> None:
    parent, model = net(5, 6), net(5, 6, classes=4)
    before = model.get_weights()
    assert copy_weights(model, parent) == ["probabilities/kernel", "probabilities/bias"]
    assert np.array_equal(model.get_weights()[0], parent.get_weights()[0])
    assert np.array_equal(model.get_weights()[-2], before[-2])


def test_as_many_other_classes_keep_their_own_last_layer_too() -> None:
    parent, model = net(5, 6), net(5, 6)
    before = model.get_weights()
    assert copy_weights(model, parent, same_classes=False) == ["probabilities/kernel", "probabilities/bias"]
    assert np.array_equal(model.get_weights()[0], parent.get_weights()[0])
    assert np.array_equal(model.get_weights()[-2], before[-2])


def test_a_net_that_shares_nothing_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"^training.start_from must share weights with the net, but has none"):
        copy_weights(net(7, classes=4), net(5, 6))


@pytest.mark.parametrize(
    ("patterns", "trained"),
    [(["dense"], 4), (["dense*"], 2), ([], 6), (["dense", "probabilities"], 2), (["dense_1"], 4)],
)
def test_patterns_freeze_layers(patterns: list[str], trained: int) -> None:
    model = net(5, 6)
    model.layers[1].trainable = False
    freeze_layers(model, patterns)
    assert len(model.trainable_weights) == trained


def test_a_layer_inside_a_net_is_frozen() -> None:
    inner = net(5)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax", name="last")(inner(inputs)))
    freeze_layers(model, ["dense"])
    assert [weight.path for weight in model.trainable_weights] == [
        "probabilities/kernel",
        "probabilities/bias",
        "last/kernel",
        "last/bias",
    ]


@pytest.mark.parametrize(
    ("patterns", "line"),
    [
        (["conv*"], "training.freeze must match layers of the net, but got 'conv*'; it has"),
        (["*"], "training.freeze must leave weights to train, but got ['*']"),
    ],
)
def test_a_wrong_pattern_is_answered(patterns: list[str], line: str) -> None:
    with pytest.raises(TrainingError) as refused:
        freeze_layers(net(5, 6), patterns)
    assert line in str(refused.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def parent(folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run(*SMALL, "name=parent", quiet=True)
    assert result.run_id
    return result.run_id


def test_a_run_begins_where_its_parent_ended(parent: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frozen = run("training.start_from=parent", "training.freeze=[dense,dense_1]", "training.epochs=1")
    assert frozen.run_id
    printed = capsys.readouterr().out
    assert f"begins with the weights of parent ({parent[:8]})" in " ".join(printed.split())
    store = open_store(f"sqlite:///{folder}/mlruns/mlflow.db", folder / "mlruns")
    stored = fetch_run(store, frozen.run_id)
    assert stored.tags[tags.STARTED_FROM] == parent
    assert stored.params["training.start_from"] == parent
    assert stored.params["model.widths"] == "[12, 8]"
    assert f"with the weights of run {parent}" in stored.tags[tags.NOTE]
    before, after = (load_model(store.uri, run_id).get_weights() for run_id in (parent, frozen.run_id))
    assert all(np.array_equal(one, other) for one, other in zip(before[:4], after[:4], strict=True))
    assert not np.array_equal(before[4], after[4])


def test_a_net_that_is_chosen_stays_chosen(parent: str) -> None:
    result = run("training.start_from=parent", "model.widths=[12,9]", "training=smoke", quiet=True)
    assert result.parameters == 784 * 12 + 12 + 12 * 9 + 9 + 9 * 10 + 10


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["training.start_from=nobody"],
            "the run must be an id, a name, latest, best, best:DATASET or models:/NAME@ALIAS, but got 'nobody'",
        ),
        (
            ["training.start_from=parent", "tracking=off"],
            "training.start_from needs the tracking store that knows the run, but got 'tracking=off'",
        ),
        (
            ["training.start_from=parent", "model=cnn"],
            "training.start_from must share weights with the net, but has none",
        ),
        (
            ["training.start_from=parent", "training.freeze=[conv]"],
            "training.freeze must match layers of the net, but got 'conv'",
        ),
    ],
)
def test_what_cannot_be_gone_on_from_is_answered(parent: str, overrides: list[str], line: str) -> None:
    with pytest.raises(UserError) as refused:
        run(*overrides, quiet=True)
    assert line in str(refused.value)


def test_a_run_that_did_not_finish_has_no_weights(parent: str) -> None:
    with pytest.raises(UserError):
        run("name=broken", "training.epochs=1", "optimizer.learning_rate=1e30", quiet=True)
    with pytest.raises(TrackingError, match="must be FINISHED"):
        run("training.start_from=broken", quiet=True)


def test_the_trials_of_a_sweep_begin_with_a_run(
    parent: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ["training.start_from=parent", "training.freeze=[dense],[dense_1]", "training=smoke", "sweep.name=more"]
    monkeypatch.setattr("sys.argv", ["mnist_exp", "-m", *given])
    assert main() == 0, capfd.readouterr().out
    store = open_store(f"sqlite:///{folder}/mlruns/mlflow.db", folder / "mlruns")
    trials = [run for run in list_runs(store, "tags.kind = 'trial'") if run.name.startswith("more")]
    assert [trial.tags[tags.STARTED_FROM] for trial in trials] == [parent, parent]
    assert {trial.params["model.widths"] for trial in trials} == {"[12, 8]"}
    before, *after = (load_model(store.uri, run_id).get_weights() for run_id in (parent, *(t.id for t in trials)))
    for trial, weights in zip(trials, after, strict=True):
        frozen = 0 if trial.params["training.freeze"] == "['dense']" else 2
        assert np.array_equal(weights[frozen], before[frozen])
        assert not np.array_equal(weights[2 - frozen], before[2 - frozen])


def test_a_copy_of_the_parent_is_found_by_the_id_of_the_first(parent: str, folder: Path) -> None:
    store = open_store(f"sqlite:///{folder}/mlruns/mlflow.db", folder / "mlruns")
    copied = run("training=smoke", "name=copied", quiet=True)
    assert copied.run_id
    store.set_tags(copied.run_id, {tags.COPIED_FROM: "0123456789abcdef"})
    assert find_run(store, "01234567").id == copied.run_id


def test_a_run_with_a_loss_and_an_optimizer_of_ones_own_needs_neither_to_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    given = ["training.loss={_target_:own_training.focal}", "optimizer=custom", "optimizer._target_=own_training.Signs"]
    result = run(*given, "training=smoke", "name=odd", quiet=True)
    assert result.run_id
    store = open_store(f"sqlite:///{folder}/mlruns/mlflow.db", folder / "mlruns")
    assert "own_code" not in read_metadata(store.uri, result.run_id)
    assert not result.load_model().compiled
