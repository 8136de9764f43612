"""The order of the training images, as windows of batches and one batch at a time."""

from collections.abc import Iterator, Sequence

import keras
import numpy as np


class BatchOrder:
    """The order of the training images: one permutation per epoch, drawn from (seed, epoch), also when resumed.

    full: the number of full batches of an epoch. short: the number of images of the short last one; 0: there is none.
    """

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.full, self.short = divmod(images, batch_size)
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draws the permutation of this epoch."""
        self.permutation = np.random.default_rng([self.seed, epoch]).permutation(self.images).astype(np.int32)

    @property
    def batches(self) -> int:
        """The number of batches per epoch, including a short last one."""
        return self.full + bool(self.short)

    def batch(self, number: int) -> np.ndarray:
        """Returns the images of a batch, int32 (batch_size,) or fewer."""
        return self.permutation[number * self.batch_size : (number + 1) * self.batch_size]

    @property
    def last(self) -> np.ndarray:
        """The images of the short last batch, int32 (short,)."""
        return self.permutation[self.images - self.short :]

    def windows(self, size: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yields the full batches in windows: int32 (size, batch_size), of which the first so many are batches."""
        batches = self.permutation[: self.full * self.batch_size].reshape(self.full, self.batch_size)
        for start in range(0, max(self.full, 1), max(size, 1)):
            window = batches[start : start + size]
            yield np.concatenate([window, np.zeros((size - len(window), self.batch_size), np.int32)]), len(window)


class Batches(keras.utils.PyDataset):
    """One batch at a time for `fit`, in the same order."""

    def __init__(self, parts: Sequence[np.ndarray], order: BatchOrder) -> None:
        """parts: images, targets and, if they have weights, those of the images."""
        super().__init__()
        self.parts, self.order = parts, order

    def __len__(self) -> int:
        return self.order.batches

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        chosen = self.order.batch(number)
        return tuple(part[chosen] for part in self.parts)
