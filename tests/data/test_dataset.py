import numpy as np
import pytest

from mnist_exp.data.dataset import ImageSet, check_arrays
from mnist_exp.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 5), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 1])


def refusal(images: np.ndarray, labels: np.ndarray) -> str:
    with pytest.raises(DataError) as caught:
        check_arrays(images, labels, "mine.npz (train)")
    assert str(caught.value).startswith("mine.npz (train)")
    return str(caught.value)


def test_grey_images_get_a_channel_axis() -> None:
    part = check_arrays(IMAGES, LABELS, "mine.npz")
    assert part.images.shape == (4, 6, 5, 1)
    assert np.array_equal(part.images[..., 0], IMAGES)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_channel_axis_is_kept(channels: int) -> None:
    images = np.repeat(IMAGES[..., None], channels, axis=-1)
    assert np.array_equal(check_arrays(images, LABELS, "mine.npz").images, images)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", ">i4", "int64", "uint64"])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_labels_of_any_whole_numbers(dtype: str, shape: tuple[int, ...]) -> None:
    labels = check_arrays(IMAGES, LABELS.astype(dtype).reshape(shape), "mine.npz").labels
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize(
    ("images", "dtype", "remedy"),
    [
        ((IMAGES / 255).astype("float32"), "float32", "0-1: save (images * 255).round().astype('uint8')"),
        (IMAGES.astype("float64"), "float64", "0-255: save images.round().astype('uint8')"),
        (IMAGES.astype("int64"), "int64", "0-255: save images.round().astype('uint8')"),
        (IMAGES > 128, "bool", "0-1: save (images * 255).round().astype('uint8')"),
    ],
)
def test_other_dtypes_are_refused_with_a_remedy_that_works(images: np.ndarray, dtype: str, remedy: str) -> None:
    message = refusal(images, LABELS)
    assert f"images must be uint8, 0-255, but got '{dtype}'; these lie in {remedy}" in message
    converted = eval(message.split("save ")[1], {"images": images})
    expected = (IMAGES > 128) * 255 if dtype == "bool" else IMAGES
    assert np.array_equal(check_arrays(converted, LABELS, "").images[..., 0], expected)


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (IMAGES / 127.5 - 1, "float64'; these lie in -"),
        (IMAGES.astype("uint16") * 257, "uint16'; these lie in "),
        (np.full((4, 6, 5), np.nan), "float64'; these lie in nan"),
        (IMAGES.astype("complex64"), "complex64'; save"),
        (np.array(["a"] * 4), "<U1'; save"),
    ],
)
def test_other_ranges_and_kinds_are_refused(images: np.ndarray, received: str) -> None:
    message = refusal(images, LABELS)
    assert f"images must be uint8, 0-255, but got '{received}" in message
    assert "astype('uint8')" in message


@pytest.mark.parametrize("shape", [(4, 30), (4, 3, 6, 5), (4, 6, 5, 4), (4, 6, 5, 1, 1), (4,), ()])
def test_other_ranks_are_refused(shape: tuple[int, ...]) -> None:
    message = refusal(np.zeros(shape, np.uint8), LABELS)
    assert f"(n, height, width) or (n, height, width, 1 or 3), but got {shape}; reshape them, or move the" in message


@pytest.mark.parametrize(
    ("labels", "received", "remedy"),
    [
        (np.eye(3)[LABELS], "float64 (4, 3)", "labels.argmax(axis=1)"),
        (np.eye(3, dtype=np.uint8)[LABELS], "uint8 (4, 3)", "labels.argmax(axis=1)"),
        (LABELS.astype("float32"), "float32 (4,)", "labels.astype(int)"),
        (LABELS == 1, "bool (4,)", "labels.astype(int)"),
        (np.array(["cat", "dog", "cat", "dog"]), "<U3 (4,)", "numpy.unique(labels, return_inverse=True)"),
    ],
)
def test_labels_that_are_no_integers_are_refused(labels: np.ndarray, received: str, remedy: str) -> None:
    message = refusal(IMAGES, labels)
    assert f"labels must be integers of shape (n,), but got '{received}'; " in message
    assert remedy in message


def test_unequal_counts_are_refused() -> None:
    assert "must hold one label per image, but got '4 images and 3 labels'; save both" in refusal(IMAGES, LABELS[:3])


@pytest.mark.parametrize("shape", [(0, 6, 5), (4, 0, 5)])
def test_empty_arrays_are_refused(shape: tuple[int, ...]) -> None:
    message = refusal(np.zeros(shape, np.uint8), np.zeros(shape[0], int))
    assert f"must hold images, but got {shape}; " in message


def test_equal_digests_mean_equal_pixels() -> None:
    images = np.stack([IMAGES[0], IMAGES[1], IMAGES[0], IMAGES[0] ^ np.eye(6, 5, dtype=np.uint8)])
    first, second, third, fourth = check_arrays(images, LABELS, "").digests
    assert len(first) == 32
    assert first == third
    assert len({first, second, fourth}) == 3


@pytest.mark.parametrize("index", [np.array([2, 0]), slice(1, 3)])
def test_digests_follow_a_selection(index: np.ndarray | slice) -> None:
    part = check_arrays(IMAGES, LABELS, "")
    before = part[index].digests
    assert np.array_equal(before, part.digests[index])
    assert np.array_equal(before, part[index].digests)
    assert np.array_equal(before, ImageSet(part.images[index], part.labels[index]).digests)
