import gzip
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mnist_exp.data import npz
from mnist_exp.data.files import read_idx
from mnist_exp.data.splits import Splits
from mnist_exp.errors import DataError

Arrays = dict[str, np.ndarray]
TRAIN_ONLY = ("x_train", "y_train")


def refusal(path: str | Path, class_names: list[str] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        npz(str(path), class_names)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_file_with_a_test_set(load: Callable[..., Splits], save: Callable[[Arrays], str], arrays: Arrays) -> None:
    splits = load("dataset=npz", f"dataset.path={save(arrays)}", "dataset.method=tail")
    assert np.array_equal(splits.train.images[..., 0], arrays["x_train"][:24])
    assert np.array_equal(splits.validation.labels, arrays["y_train"][24:])
    assert np.array_equal(splits.test.images[..., 0], arrays["x_test"])
    assert np.array_equal(splits.test.labels, arrays["y_test"])
    assert splits.class_names == ("0", "1", "2")
    assert (splits.name, splits.description) == ("npz", "mine.npz, 42 images")


def test_a_file_without_a_test_set(load: Callable[..., Splits], save: Callable[[Arrays], str], arrays: Arrays) -> None:
    path = save({key: arrays[key] for key in TRAIN_ONLY})
    splits = load("dataset=npz", f"dataset.path={path}", "dataset.class_names=[cat,dog,owl]")
    assert [len(part) for part in splits.parts.values()] == [19, 5, 6]
    assert splits.class_names == ("cat", "dog", "owl")


def test_a_folder_of_idx_files(save_idx: Callable[..., Path], arrays: Arrays) -> None:
    plain = npz(str(save_idx(arrays)), None)
    assert np.array_equal(plain.train.images[..., 0], arrays["x_train"])
    assert plain.description == "idx, 42 images"


@pytest.mark.parametrize("code", ["08 u1", "09 i1", "0b >i2", "0c >i4", "0d >f4", "0e >f8"])
@pytest.mark.parametrize("gzipped", [False, True])
def test_idx_files_of_any_type(tmp_path: Path, code: str, gzipped: bool) -> None:
    number, dtype = code.split()
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    content = bytes.fromhex(f"0000{number}03 00000002 00000003 00000004") + array.tobytes()
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(content, mtime=0) if gzipped else content)
    found = read_idx(path)
    assert found.dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(found, array)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path / "mine.npz")
    assert f"does not exist (dataset.path, seen from {Path.cwd()}); dataset=digits works without" in message


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_npz_is_refused_wherever_it_is_cut(tmp_path: Path, arrays: Arrays, compressed: bool) -> None:
    path = tmp_path / "mine.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)  # type: ignore[arg-type]
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert "is not a readable npz file (not a zip archive, or only part of one); copy it again" in refusal(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_npz_is_read_whole_or_refused(tmp_path: Path, arrays: Arrays, compressed: bool) -> None:
    path = tmp_path / "mine.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)  # type: ignore[arg-type]
    whole, refusals = path.read_bytes(), []
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            found = npz(str(path), None).train
        except DataError as error:
            refusals.append(str(error))
        else:
            assert np.array_equal(found.images[..., 0], arrays["x_train"])
    assert len(refusals) > len(whole) / 22
    assert all(refusal.startswith(str(path)) for refusal in refusals)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"PK\x03\x04", pickle.dumps([1, 2]), b"\x93NUMPY\x01\x00", b"\x89PNG\r\n\x1a\n" + bytes(200)],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    assert "is not a readable npz file (not a zip archive" in refusal(path)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.zeros((4, 6, 5), np.uint8))
    assert "or write it with numpy.savez(path, x_train=..., y_train=...)" in refusal(tmp_path / "mine.npy")


@pytest.mark.parametrize(
    ("entries", "received"),
    [
        ({}, "must hold x_train and y_train, but got []; "),
        ({"notes.txt": b"hello"}, "must hold x_train and y_train, but got ['notes.txt']; "),
        ({"x_train.npy": b"hello", "y_train.npy": b"hello"}, "images must be uint8, 0-255, but got '|S5'; "),
        ({"x_train": b"", "y_train": b""}, "images must be uint8, 0-255, but got '|S1'; "),
    ],
)
def test_a_zip_that_is_no_npz_is_refused(tmp_path: Path, entries: dict[str, bytes], received: str) -> None:
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert received in refusal(path)


@pytest.mark.parametrize(
    ("kept", "needed", "held"),
    [
        (["x_train"], "x_train and y_train", ["x_train"]),
        (["y_train"], "x_train and y_train", ["y_train"]),
        (["x_test", "y_test"], "x_train and y_train", ["x_test", "y_test"]),
        (["x_train", "y_train", "x_test"], "x_test and y_test", ["x_train", "y_train", "x_test"]),
        (["x_train", "y_train", "y_test"], "x_test and y_test", ["x_train", "y_train", "y_test"]),
    ],
)
def test_missing_arrays_are_refused(
    save: Callable[[Arrays], str], arrays: Arrays, kept: list[str], needed: str, held: list[str]
) -> None:
    message = refusal(save({key: arrays[key] for key in kept}))
    assert f"must hold {needed}, but got {held}; copy it again, or write it with numpy.savez" in message


def test_arrays_of_other_names_are_listed(save: Callable[[Arrays], str], arrays: Arrays) -> None:
    message = refusal(save({"images": arrays["x_train"], "labels": arrays["y_train"]}))
    assert "must hold x_train and y_train, but got ['images', 'labels']; " in message


def test_pickled_arrays_are_refused(save: Callable[[Arrays], str], arrays: Arrays) -> None:
    message = refusal(save({**arrays, "y_train": np.array(["cat", None] * 15, dtype=object)}))
    assert "Object arrays cannot be loaded" in message
    assert "from plain arrays" in message


@pytest.mark.parametrize("half", ["train", "test"])
def test_unusable_arrays_are_refused_naming_the_half(save: Callable[[Arrays], str], arrays: Arrays, half: str) -> None:
    path = save({**arrays, f"x_{half}": arrays[f"x_{half}"] / 255})
    with pytest.raises(
        DataError, match=rf"mine\.npz \({half}\): images must be uint8, 0-255, but got 'float64'; .*0-1"
    ):
        npz(path, None)


def test_class_names_shorter_than_the_labels_are_refused(
    load: Callable[..., Splits], save: Callable[[Arrays], str], arrays: Arrays
) -> None:
    with pytest.raises(DataError, match=r"mine.npz.* labels must lie in 0 to 1 for 2 classes, but got 2; renumber"):
        load("dataset=npz", f"dataset.path={save(arrays)}", "dataset.class_names=[cat,dog]")


def test_labels_far_beyond_the_images_are_refused(save: Callable[[Arrays], str], arrays: Arrays) -> None:
    message = refusal(save({**arrays, "y_train": arrays["y_train"].astype(np.int64) * 10**6}))
    assert "labels must be below 30, the number of images, but got 2000000; renumber them with" in message


def test_a_folder_that_lacks_an_idx_file_is_refused(save_idx: Callable[..., Path], arrays: Arrays) -> None:
    folder = save_idx(arrays)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    message = refusal(folder)
    assert "has no t10k-labels-idx1-ubyte; a folder of IDX files needs train-images" in message


@pytest.mark.parametrize("gzipped", [False, True])
def test_truncated_idx_files_are_refused_wherever_they_are_cut(
    save_idx: Callable[..., Path], arrays: Arrays, gzipped: bool
) -> None:
    path = next(save_idx(arrays, gzipped).glob("train-images*"))
    whole = path.read_bytes()
    for length in [*range(40), *range(40, len(whole), 7)]:
        path.write_bytes(whole[:length])
        assert "it may be truncated: copy it again" in refusal(path.parent)


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"", "must start with 00 00, a type and a rank up to 4, as IDX files do, but got ''; "),
        (b"hello", "as IDX files do, but got '68 65 6c 6c'; "),
        (bytes.fromhex("00000703"), "as IDX files do, but got '00 00 07 03'; "),
        (bytes.fromhex("000008ff"), "as IDX files do, but got '00 00 08 ff'; "),
        (bytes.fromhex("00000803"), "must have a header of 16 bytes, but got 4; "),
        (
            bytes.fromhex("00000801 ffffffff"),
            "must hold 4294967295 bytes of (4294967295,) after its header, but got 0; ",
        ),
        (bytes.fromhex("00000801 00000001 0102"), "must hold 1 bytes of (1,) after its header, but got 2; "),
        (b"\x1f\x8bhello", "is not a readable gzip or IDX file ("),
        (gzip.compress(b"hello", mtime=0), "as IDX files do, but got '68 65 6c 6c'; "),
        (gzip.compress(bytes(5000), mtime=0)[:-9] + bytes(9), "is not a readable gzip or IDX file ("),
    ],
)
def test_other_idx_content_is_refused(tmp_path: Path, content: bytes, received: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert str(caught.value).startswith(f"{path} ")
    assert received in str(caught.value)
    assert str(caught.value).endswith("copy it again")
