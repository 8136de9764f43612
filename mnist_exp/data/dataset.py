"""Labelled images, checked: what every data set delivers."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from mnist_exp.errors import DataError

Preparation = Literal["mnist", "digits", "resize"]


@dataclass(frozen=True)
class Part:
    """images: uint8 (n, height, width, channels), 0-255; labels: int64 (n,), 0 to classes - 1."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: np.ndarray | slice) -> "Part":
        chosen = Part(self.images[index], self.labels[index])
        if "digests" in self.__dict__:  # computed already: 0.15 s for MNIST not spent again
            chosen.__dict__["digests"] = self.digests[index]
        return chosen

    @cached_property
    def digests(self) -> np.ndarray:
        """A 16-byte BLAKE2b digest of each image, in hex: bytes (n,). Equal digests mean equal pixels."""
        flat = np.ascontiguousarray(self.images).reshape(len(self), -1)
        return np.array([hashlib.blake2b(image.data, digest_size=16).hexdigest() for image in flat], dtype="S32")


@dataclass(frozen=True)
class Source:
    """A data set as it was found. `test` is None where it brings no test set of its own.

    preparation: how an image from elsewhere is made like these, a recipe of mnist_exp.preparation.
    """

    train: Part
    test: Part | None
    class_names: tuple[str, ...]
    description: str
    preparation: Preparation = "resize"


def labelled(images: np.ndarray, labels: np.ndarray, where: str) -> Part:
    """Checked images and labels as a Part, a channel axis added where there is none.

    where: names the file. Raises DataError for a wrong dtype or rank, unequal counts, or labels not whole numbers.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        raise DataError(f"{where}: images must be uint8, 0-255, but got {images.dtype}; {_to_uint8(images)}")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)):
        raise DataError(
            f"{where}: images must be (n, height, width) or (n, height, width, 1 or 3), but got {images.shape}; "
            "reshape them, or move the channels to the end with numpy.moveaxis(images, 1, -1)"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels must be whole numbers of shape (n,), but got {labels.dtype} of shape {labels.shape}; "
            f"{_to_whole_numbers(labels)}"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{where}: every image needs one label, but got {len(images)} images and {len(labels)} labels; "
            "save both from the same selection"
        )
    if not images.size:
        raise DataError(f"{where}: must hold images, but got none, shape {images.shape}; check how it was written")
    return Part(images[..., None] if images.ndim == 3 else images, labels.astype(np.int64))


def _to_uint8(images: np.ndarray) -> str:
    if images.dtype.kind not in "biuf" or not images.size:
        return "save an array of numbers with images.astype('uint8')"
    low, high = images.min(), images.max()
    if low >= 0 and high <= 1:
        return "these lie in 0-1: save (images * 255).round().astype('uint8')"
    if low >= 0 and high <= 255:
        return "these lie in 0-255: save images.round().astype('uint8')"
    return (
        f"these lie in {low:g} to {high:g}: scale all by one range, "
        "((images - low) / (high - low) * 255).round().astype('uint8')"
    )


def _to_whole_numbers(labels: np.ndarray) -> str:
    if labels.ndim == 2:
        return "one-hot labels become such with labels.argmax(axis=1)"
    if labels.dtype.kind in "bf":
        return "save labels.astype(int)"
    return "names become numbers with names, labels = numpy.unique(labels, return_inverse=True)"
