"""Finds images that are nearly the same: saved again, in another size, a little brighter."""

from collections.abc import Iterator

import numpy as np

from mnist_exp.data.dataset import ImageSet

SIDE = 16  # pixels of the small grey images that are compared
ALIKE = 0.99  # the least correlation of two of them
FLAT = 2.0  # the least deviation of their grey levels; flatter ones look all alike
CROWD = 300  # images with the same band; if there are more, it tells nothing
PAIRS = 50_000  # whose correlations are computed at a time
CHUNK = 2000  # images that are in memory as float numbers at a time


def find_near_copies(first: ImageSet, second: ImageSet) -> list[tuple[int, int]]:
    """Returns pairs of places of images in both sets that are nearly but not exactly the same, one for each in `first`.

    Candidates agree in a band of the difference hash (Krawetz 2013) of their grey levels, 64 bits. Of these the pairs
    count whose small grey images have a correlation of at least `ALIKE`.
    """
    ours, theirs = shrink(first.images), shrink(second.images)
    found: dict[int, int] = {}
    for our_band, their_band in zip(_bands(ours).T, _bands(theirs).T, strict=True):
        for places, others in _pairs(our_band, their_band):
            alike = np.einsum("ij,ij->i", ours[places], theirs[others]) >= ALIKE
            alike &= first.digests[places] != second.digests[others]
            for one, other in zip(places[alike].tolist(), others[alike].tolist(), strict=True):
                found.setdefault(one, other)
    return sorted(found.items())


def shrink(images: np.ndarray) -> np.ndarray:
    """Returns small grey images with mean 0 and length 1, float32 (n, SIDE * SIDE); flat ones are zeros.

    images: uint8 (n, height, width, channels).
    """
    rows, columns = (_averages(side) for side in images.shape[1:3])
    starts = range(0, len(images), CHUNK)
    grey = (images[start : start + CHUNK].mean(axis=3, dtype=np.float32) for start in starts)
    small = np.concatenate([rows @ part @ columns.T for part in grey]).reshape(len(images), -1)
    small -= small.mean(axis=1, keepdims=True)
    small[small.std(axis=1) < FLAT] = 0
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-9)


def _averages(side: int) -> np.ndarray:
    """The matrix that shrinks a side to `SIDE` pixels, each the mean of those that it covers: float32 (SIDE, side)."""
    edges = np.linspace(0, side, SIDE + 1)
    covered = np.minimum(edges[1:, None], np.arange(1, side + 1)) - np.maximum(edges[:-1, None], np.arange(side))
    covered = np.maximum(covered, 0)
    return (covered / covered.sum(axis=1, keepdims=True)).astype(np.float32)


def _pairs(ours: np.ndarray, theirs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields places of equal values in two arrays, in parts of about `PAIRS` pairs. Values of a crowd are left out."""
    order = np.argsort(theirs, kind="stable")
    first, last = (np.searchsorted(theirs[order], ours, side) for side in ("left", "right"))
    counts = last - first
    counts[counts > CROWD] = 0
    for part in np.array_split(np.arange(len(ours)), counts.sum() // PAIRS + 1):
        places = np.repeat(part, counts[part])
        within = np.arange(len(places)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        yield places, order[np.repeat(first[part], counts[part]) + within]


def _bands(small: np.ndarray) -> np.ndarray:
    """The difference hash, whether each pixel is brighter than its left neighbour, in bands: uint16 (n, 4)."""
    halves = small.reshape(len(small), 8, SIDE // 8, SIDE).mean(axis=2)
    brighter = np.diff(halves[:, :, [0, 2, 4, 6, 8, 10, 12, 14, 15]], axis=2) > 0
    return np.packbits(brighter.reshape(len(small), -1), axis=1).view(np.uint16)
