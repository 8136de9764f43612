"""Images of any range of numbers as bytes."""

import numpy as np
import pytest

from mnist_exp.data.numbers import to_bytes
from mnist_exp.errors import DataError

SHARES = np.linspace(0, 1, 24).reshape(2, 3, 4)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "bool"])
def test_images_of_0_and_1_are_black_and_white(dtype: str) -> None:
    notes: list[str] = []
    images = to_bytes((SHARES > 0.5).astype(dtype), "mine", notes)
    assert np.array_equal(images, (SHARES > 0.5) * 255)
    assert images.dtype == np.uint8
    assert len(notes) == 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.001), (-0.02, 1.0), (-0.05, 1.05)])
def test_what_interpolation_has_taken_beyond_0_and_1_is_cut(low: float, high: float) -> None:
    images, notes = SHARES.copy(), list[str]()
    images[0, 0, 0], images[-1, -1, -1] = low, high
    assert np.array_equal(to_bytes(images, "mine", notes), np.rint(SHARES * 255))
    assert notes[0] == f"numbers from {low:.4g} to {high:.4g} were cut to 0 to 1"


@pytest.mark.parametrize("high", [1.2, 1.9, 256.0])
def test_a_range_that_is_neither_is_refused(high: float) -> None:
    with pytest.raises(DataError, match=r"mine: images must be from 0 to 1 or from 0 to 255, but got '0 to"):
        to_bytes(SHARES * high, "mine", [])


def test_bytes_stay_the_same_array() -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert to_bytes(images, "mine", notes := []) is images
    assert notes == []
