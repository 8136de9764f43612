"""The built-in data sets: digits, MNIST and Fashion-MNIST."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from mnist_exp.config.schema import Count, OptionalPath
from mnist_exp.data.dataset import Dataset, check_arrays
from mnist_exp.data.files import read_arrays
from mnist_exp.errors import DataError, Problem

OFFLINE = "dataset=digits works without any download"
TEN = tuple("0123456789")
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

# MD5 of the raw IDX files that LeCun, Cortes and Burges distribute.
MNIST_MD5 = {
    "train-images": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels": "a25bea736e30d166cdddb491f175f624",
    "t10k-images": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels": "27ae3e4e09519cfbb04c329615203637",
}


def digits(size: Count) -> Dataset:
    """Loads scikit-learn's 1,797 handwritten digits (Alpaydin and Kaynak 1998), scaled from 8x8 to size x size.

    There is no test set.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    small, labels = load_digits(return_X_y=True)
    tiles = (small.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    images = np.stack(
        [np.asarray(Image.fromarray(tile).resize((size, size), Image.Resampling.BICUBIC)) for tile in tiles]
    )
    words = f"digits, {len(labels):,} images shipped with scikit-learn; dataset=mnist for MNIST"
    return Dataset(check_arrays(images, labels, "digits"), None, TEN, words, "digits", curated=True)


def mnist(path: OptionalPath) -> Dataset:
    """Loads MNIST (LeCun, Cortes and Burges), 60,000 + 10,000 images of 28x28, and checks that it is the published one.

    path: an npz file in Keras's layout or a folder with the four IDX files; None lets Keras download and cache it.
    Raises DataError if the file is missing or unreadable, or is not MNIST.
    """
    dataset = _load(path, "mnist", TEN, "MNIST", "handwritten digits (LeCun, Cortes, Burges)")
    found = _idx_md5(dataset)
    if wrong := ", ".join(name for name, digest in MNIST_MD5.items() if found[name] != digest):
        rule = f"must be MNIST, but the digests of {wrong} differ"
        raise DataError(Problem(path or "the cached mnist.npz", rule, remedy="read other data sets with dataset=npz"))
    return replace(dataset, preparation="mnist")


def fashion_mnist(path: OptionalPath) -> Dataset:
    """Loads Fashion-MNIST (Xiao, Rasul and Vollgraf 2017), 60,000 + 10,000 articles of clothing of 28x28.

    path: like that of mnist.
    """
    return _load(path, "fashion_mnist", FASHION, "Fashion-MNIST", "articles of clothing (Xiao, Rasul, Vollgraf)")


def _load(path: str | None, choice: str, class_names: tuple[str, ...], name: str, content: str) -> Dataset:
    arrays, where = _read(path, choice), path or "Keras's cache"
    train = check_arrays(arrays["x_train"], arrays["y_train"], f"{where} (train)")
    test = check_arrays(arrays["x_test"], arrays["y_test"], f"{where} (test)")
    return Dataset(
        train, test, class_names, f"{name}, {len(train) + len(test):,} {content}, from {where}", curated=True
    )


def _read(path: str | None, name: str) -> dict[str, np.ndarray]:
    if path is not None:
        arrays = read_arrays(Path(path), f"{OFFLINE}, dataset={name} without a path downloads it")
        if "x_test" not in arrays:
            rule = f"has no x_test and y_test, which dataset={name} needs"
            raise DataError(Problem(path, rule, remedy="read a file without them with dataset=npz"))
        return arrays
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras wraps every failed download in a bare Exception
        rule = f"could not be downloaded ({' '.join(str(error).split())[:200]})"
        remedy = f"{OFFLINE}, and dataset.path=FILE reads a copy you have"
        raise DataError(Problem(f"dataset={name}", rule, remedy=remedy)) from error
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _idx_md5(dataset: Dataset) -> dict[str, str]:
    """Returns the MD5 digests of the IDX files with these images: magic number, sizes, content."""
    found = {}
    for stem, part in (("train", dataset.train), ("t10k", dataset.test)):
        assert part is not None
        pixels = part.images.reshape(*part.images.shape[:2], -1)
        for kind, array in (("images", pixels), ("labels", part.labels)):
            header = np.array([0x0800 + array.ndim, *array.shape], dtype=">u4").tobytes()
            digest = hashlib.md5(header, usedforsecurity=False)
            digest.update(np.ascontiguousarray(array, dtype=np.uint8).data)
            found[f"{stem}-{kind}"] = digest.hexdigest()
    return found
