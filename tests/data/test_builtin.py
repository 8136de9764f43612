import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mnist_exp.data import fashion_mnist, mnist
from mnist_exp.data.splits import Splits
from mnist_exp.errors import DataError

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def mnist_arrays(real_mnist: Path) -> Arrays:
    with np.load(real_mnist) as archive:
        return dict(archive)


def sizes(splits: Splits) -> list[int]:
    return [len(part) for part in splits.parts.values()]


def test_digits_are_the_default(load: Callable[..., Splits]) -> None:
    splits = load()
    assert splits.name == "digits"
    assert splits.description == "digits, 1,797 images shipped with scikit-learn; dataset=mnist for MNIST"
    assert sizes(splits) == [1150, 288, 359]
    assert splits.image_shape == (28, 28, 1)
    assert splits.class_names == tuple("0123456789")
    for part in splits.parts.values():
        assert part.images.dtype == np.uint8
        assert (part.images.min(), part.images.max()) == (0, 255)
        shares = np.bincount(part.labels) / len(part)
        assert shares == pytest.approx(np.full(10, 0.1), abs=0.01)
    assert splits.repeated == {}


def test_digits_follow_the_seed_of_the_data(load: Callable[..., Splits]) -> None:
    first, again, other = load(), load("seed=5"), load("dataset.seed=5")
    for name, part in first.parts.items():
        assert np.array_equal(part.digests, again.parts[name].digests)
        assert not np.array_equal(part.digests, other.parts[name].digests)
    assert first.digest == again.digest == other.digest


def test_digits_of_another_size_and_number(load: Callable[..., Splits]) -> None:
    splits = load("dataset.size=8", "dataset.limit=100", "dataset.validation=10")
    assert splits.image_shape == (8, 8, 1)
    assert sizes(splits) == [90, 10, 100]


def test_mnist_from_npz(load: Callable[..., Splits], real_mnist: Path, mnist_arrays: Arrays) -> None:
    splits = load("dataset=mnist", f"dataset.path={real_mnist}")
    assert splits.description == f"MNIST, 70,000 handwritten digits (LeCun, Cortes, Burges), from {real_mnist}"
    assert sizes(splits) == [55_000, 5_000, 10_000]
    assert np.array_equal(splits.train.images[..., 0], mnist_arrays["x_train"][:55_000])
    assert np.array_equal(splits.validation.labels, mnist_arrays["y_train"][55_000:])
    assert np.array_equal(splits.test.images[..., 0], mnist_arrays["x_test"])
    assert splits.class_names == tuple("0123456789")
    assert splits.repeated == {}


def test_mnist_is_there_in_no_time(load: Callable[..., Splits], real_mnist: Path) -> None:
    begin = time.process_time()
    load("dataset=mnist", f"dataset.path={real_mnist}")
    assert time.process_time() - begin < 1.5  # 0.4 s measured on 2 cores, composing included


@pytest.mark.parametrize("gzipped", [False, True])
def test_mnist_from_idx_files(save_idx: Callable[..., Path], mnist_arrays: Arrays, gzipped: bool) -> None:
    source = mnist(str(save_idx(mnist_arrays, gzipped)))
    assert np.array_equal(source.train.images[..., 0], mnist_arrays["x_train"])
    assert source.test is not None
    assert np.array_equal(source.test.labels, mnist_arrays["y_test"])


@pytest.mark.parametrize("key", ["x_train", "y_test"])
def test_mnist_with_one_changed_value_is_refused(save: Callable[[Arrays], str], mnist_arrays: Arrays, key: str) -> None:
    changed = mnist_arrays[key].copy()
    changed.flat[4711] ^= 1
    path = save({**mnist_arrays, key: changed})
    wrong = {"x_train": "train-images", "y_test": "t10k-labels"}[key]
    with pytest.raises(DataError) as caught:
        mnist(path)
    assert str(caught.value) == (
        f"{path} must be MNIST, but the digests of {wrong} differ; read other data sets with dataset=npz"
    )


def test_another_data_set_is_no_mnist(save: Callable[[Arrays], str], arrays: Arrays) -> None:
    with pytest.raises(DataError, match=r"digests of train-images, train-labels, t10k-images, t10k-labels differ"):
        mnist(save(arrays))


@pytest.mark.parametrize("gzipped", [None, False, True])
def test_fashion_mnist_from_a_path(
    load: Callable[..., Splits],
    save: Callable[[Arrays], str],
    save_idx: Callable[..., Path],
    arrays: Arrays,
    gzipped: bool | None,
) -> None:
    path = save(arrays) if gzipped is None else save_idx(arrays, gzipped)
    splits = load("dataset=fashion_mnist", f"dataset.path={path}", "dataset.validation=5")
    assert sizes(splits) == [25, 5, 12]
    assert np.array_equal(splits.test.images[..., 0], arrays["x_test"])
    assert (splits.class_names[0], splits.class_names[9]) == ("T-shirt/top", "Ankle boot")
    assert splits.description == f"Fashion-MNIST, 42 articles of clothing (Xiao, Rasul, Vollgraf), from {path}"


@pytest.mark.parametrize("load_named", [mnist, fashion_mnist])
def test_a_missing_file_is_refused(load_named: Callable, tmp_path: Path) -> None:
    name = load_named.__name__
    with pytest.raises(DataError) as caught:
        load_named(str(tmp_path / "gone.npz"))
    assert str(caught.value) == (
        f"{tmp_path / 'gone.npz'} does not exist (dataset.path, seen from {Path.cwd()}); "
        f"dataset=digits works without any download, dataset={name} without a path downloads it"
    )


@pytest.mark.parametrize("load_named", [mnist, fashion_mnist])
def test_a_file_without_test_images_is_refused(
    load_named: Callable, save: Callable[[Arrays], str], arrays: Arrays
) -> None:
    path = save({key: arrays[key] for key in ("x_train", "y_train")})
    with pytest.raises(DataError, match=r"mine.npz has no x_test and y_test, which dataset=\w*mnist needs; .*npz"):
        load_named(path)


@pytest.mark.parametrize("load_named", [mnist, fashion_mnist])
def test_unusable_arrays_are_refused(load_named: Callable, save: Callable[[Arrays], str], arrays: Arrays) -> None:
    path = save({**arrays, "x_train": arrays["x_train"] / 255})
    with pytest.raises(DataError, match=r"mine.npz \(train\): images must be uint8, 0-255, but got 'float64'; .* 0-1"):
        load_named(path)


def test_keras_downloads_where_there_is_no_path(monkeypatch: pytest.MonkeyPatch, arrays: Arrays) -> None:
    import keras  # seconds, so one test holds all of it

    def unreachable() -> None:
        raise Exception("URL fetch failure on https://storage.googleapis.com/mnist.npz: None -- [Errno -2]\nunknown")

    def downloaded() -> tuple:
        return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])

    for load_named in (mnist, fashion_mnist):
        name = load_named.__name__
        monkeypatch.setattr(getattr(keras.datasets, name), "load_data", unreachable)
        with pytest.raises(DataError) as caught:
            load_named(None)
        assert str(caught.value) == (
            f"dataset={name} could not be downloaded (URL fetch failure on https://storage.googleapis.com/mnist.npz: "
            "None -- [Errno -2] unknown); dataset=digits works without any download, "
            "and dataset.path=FILE reads a copy you have"
        )
        monkeypatch.setattr(getattr(keras.datasets, name), "load_data", downloaded)
    source = fashion_mnist(None)
    assert np.array_equal(source.train.images[..., 0], arrays["x_train"])
    assert source.description.endswith("from Keras's cache")
    with pytest.raises(DataError, match=r"^the cached mnist.npz must be MNIST"):
        mnist(None)
