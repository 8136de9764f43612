"""Frozen backbones and their features on disk."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from mnist_exp import models, run
from mnist_exp.errors import ConfigError
from mnist_exp.training import features
from mnist_exp.training.features import FrozenNet, keep
from mnist_exp.training.program_cache import remove_oldest

HEAD: dict[str, Any] = {"dense": [], "dropout": 0.0, "activation": "relu"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 colour images of two classes, whose colours differ."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for label, colour in (("red", (200, 60, 60)), ("blue", (60, 60, 200))):
        (folder / label).mkdir(parents=True)
        for number in range(30):
            pixels = np.clip(rng.normal(colour, 40, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights of a backbone in a file."""
    keras.utils.set_random_seed(1)
    net = keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(40, 40, 3), pooling="avg")
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    net.save_weights(path)
    return str(path)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache"))


def overrides(photos: Path, weights: str) -> list[str]:
    return [
        "model=pretrained",
        f"model.weights={weights}",
        "dataset=folder",
        f"dataset.path={photos}",
        "training.epochs=3",
        "training.batch_size=8",
    ]


def build(backbone: str, shape: tuple[int, int, int] = (32, 32, 3), **keys: Any) -> keras.Model:
    return models.pretrained(shape, 4, **({"backbone": backbone, "weights": None, "size": None} | HEAD | keys))


@pytest.mark.parametrize(
    ("backbone", "module"),
    [
        ("MobileNetV3Small", "mobilenet_v3"),
        ("MobileNetV2", "mobilenet_v2"),
        ("ResNet50", "resnet"),
        ("DenseNet121", "densenet"),
        ("EfficientNetB0", "efficientnet"),
    ],
)
def test_pixels_are_prepared_as_the_backbone_expects(backbone: str, module: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    model = build(backbone)
    inner = model.get_layer("features")
    net = next(layer for layer in inner.layers if isinstance(layer, keras.Model))
    prepared = getattr(keras.applications, module).preprocess_input(pixels.astype(np.float32).copy())
    expected = np.asarray(net(prepared, training=False))
    assert np.abs(np.asarray(inner(pixels, training=False)) - expected).max() < 1e-4 * max(1, np.abs(expected).max())


def test_grey_images_and_other_sizes() -> None:
    model = build("MobileNetV3Small", (28, 28, 1), size=48)
    assert np.asarray(model(np.zeros((2, 28, 28, 1), np.uint8))).shape == (2, 4)


def test_only_the_head_is_trained() -> None:
    keras.backend.clear_session()
    model = build("MobileNetV3Small", dense=[16])
    assert [weight.path for weight in model.trainable_weights] == [
        "dense/kernel",
        "dense/bias",
        "probabilities/kernel",
        "probabilities/bias",
    ]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            {"backbone": "MobileNetV3"},
            "model.backbone must be a net of keras.applications, but got 'MobileNetV3'; did you mean MobileNet",
        ),
        ({"backbone": "resnet"}, "model.backbone must be a net of keras.applications, but got 'resnet'"),
        ({"backbone": "InceptionV3"}, "model.size must suit InceptionV3 (Input size must be at least 75x75"),
        (
            {"backbone": "MobileNetV3Small", "weights": "no.h5"},
            "model.weights must be imagenet, null or a file (seen from",
        ),
    ],
)
def test_a_wrong_backbone_is_answered(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(**keys)
    assert line in str(refused.value)


def test_weights_of_another_net_are_refused(weights: str, tmp_path: Path) -> None:
    (tmp_path / "broken.weights.h5").write_bytes(b"no file of weights")
    for path in (weights, str(tmp_path / "broken.weights.h5")):
        with pytest.raises(ConfigError, match="must hold the weights of MobileNetV2 without its top"):
            build("MobileNetV2", weights=path)


def test_the_head_on_features_is_trained_as_within_the_whole_net(photos: Path, weights: str) -> None:
    given = overrides(photos, weights)
    kept = run(*given, quiet=True)
    whole = run(*given, "augmentation=[{_target_:keras.layers.Identity}]", quiet=True)  # changes nothing
    assert kept.metrics["val/accuracy"] == whole.metrics["val/accuracy"]
    pairs = zip(kept.load_model().get_weights(), whole.load_model().get_weights(), strict=True)
    assert max(float(np.abs(one - other).max()) for one, other in pairs) < 1e-4
    assert kept.load_model().predict(np.zeros((1, 40, 40, 3), np.uint8), verbose=0).shape == (1, 2)


def test_a_net_of_the_users_own_with_the_same_names_is_trained_whole() -> None:
    """It may prepare the images outside of its features, or draw random numbers within."""
    inputs = keras.Input((8, 8, 1))
    inside, vector = keras.Input((8, 8, 1)), keras.Input((64,))
    features = keras.Model(inside, keras.layers.Flatten()(keras.layers.RandomFlip()(inside)), name="features")
    head = keras.Model(vector, keras.layers.Dense(3, "softmax")(vector), name="head")
    assert FrozenNet.of(keras.Model(inputs, head(features(inputs)))) is None
    assert FrozenNet.of(keras.Model(inputs, head(features(keras.layers.Rescaling(-1)(inputs))))) is None
    assert FrozenNet.of(build("MobileNetV3Small")) is not None


def test_features_are_computed_once(
    photos: Path, weights: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given, computed = overrides(photos, weights), []
    plain = FrozenNet._compute
    monkeypatch.setattr(FrozenNet, "_compute", lambda net, images: computed.append(len(images)) or plain(net, images))
    first = run(*given, quiet=True)
    assert computed == [38, 10]
    again = run(*given, "optimizer.learning_rate=0.01", quiet=True)
    assert computed == [38, 10]
    assert again.metrics != first.metrics
    for path in (tmp_path / "cache/features").iterdir():
        path.write_bytes(path.read_bytes()[:-5] + b"wrong")
    assert run(*given, quiet=True).metrics == first.metrics
    assert computed == [38, 10, 38, 10]
    run(*given, "training.feature_cache=false", quiet=True)
    assert computed == [38, 10] * 3


def test_the_whole_net_is_trained_when_nothing_is_frozen(photos: Path, weights: str) -> None:
    head = run(*overrides(photos, weights), "name=head", quiet=True)
    whole = run(
        "training.start_from=head",
        "dataset=folder",
        f"dataset.path={photos}",
        "training.freeze=[]",
        "training.epochs=1",
        "training.batch_size=8",
        "optimizer.learning_rate=1e-4",
        quiet=True,
    )
    before, after = (result.load_model().get_layer("features").get_weights() for result in (head, whole))
    assert any(np.abs(one - other).max() > 0 for one, other in zip(before, after, strict=True))


def test_an_array_is_kept_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, array = tmp_path / "kept", np.arange(12, dtype=np.float32).reshape(3, 4)
    assert np.array_equal(keep(folder, "a", lambda: array), array)
    assert np.array_equal(keep(folder, "a", lambda: array + 1), array)
    (folder / "a.npy").write_bytes(b"")
    assert np.array_equal(keep(folder, "a", lambda: array + 1), array + 1)
    assert np.array_equal(keep(None, "a", lambda: array), array)
    monkeypatch.setattr(features, "LIMIT", 0)
    keep(folder, "b", lambda: array)
    assert list(folder.iterdir()) == []
    (tmp_path / "file").touch()
    assert np.array_equal(keep(tmp_path / "file", "a", lambda: array), array)  # no folder can be made there


def test_the_oldest_are_removed_first(tmp_path: Path) -> None:
    import os

    for age, name in enumerate("abc"):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (age, age))
    remove_oldest(tmp_path.iterdir(), 25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]


def test_a_run_is_the_same_whether_its_backbone_was_built_for_it_or_not(photos: Path, weights: str) -> None:
    from mnist_exp.models import backbones

    backbones.give_up_sharing()
    first, second = (run(*overrides(photos, weights), quiet=True).load_model().get_weights() for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
