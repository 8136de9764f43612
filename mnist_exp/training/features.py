"""What a frozen part of a net answers for the images of a data set, computed once and kept on disk.

A net that is made of the nets `features` and `head`, of which the first is frozen, answers in every epoch, trial and
run with the same features for an image. So they are computed once, and the head alone is trained on them.
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakKeyDictionary

import keras
import numpy as np
import platformdirs
import tensorflow as tf

from mnist_exp.data.dataset import ImageSet
from mnist_exp.data.splits import Splits
from mnist_exp.training.program_cache import remove_oldest

FEATURES, HEAD = "features", "head"  # the names of the two nets
LIMIT = 2 * 2**30  # bytes of the folder
BATCH = 64  # images
DIGEST = 32  # bytes before the array in a file
_digests: WeakKeyDictionary[keras.Model, bytes] = WeakKeyDictionary()  # of frozen nets


@dataclass(frozen=True)
class FrozenNet:
    """A net whose first part is frozen. folder: where the features are kept; None: nowhere."""

    features: keras.Model
    head: keras.Model
    folder: Path | None

    @classmethod
    def of(cls, model: keras.Model, is_kept: bool = True) -> "FrozenNet | None":
        """Returns the parts of a net that `models.pretrained` has built; None of another one, and if it is not frozen.

        is_kept: whether to keep the features.
        """
        if [layer.name for layer in model.layers[1:]] != [FEATURES, HEAD]:
            return None
        parts = {layer.name: layer for layer in model.layers}
        if not getattr(parts[FEATURES], "is_backbone", False) or parts[FEATURES].trainable_weights:
            return None
        folder = Path(platformdirs.user_cache_dir("mnist_exp")) / "features" if is_kept else None
        return cls(parts[FEATURES], parts[HEAD], folder)

    def replace_images(self, splits: Splits) -> Splits:
        """Returns the data with the features of each image, float32 (n, features), in its place."""
        if self.features not in _digests:  # trials share this net, which nobody changes
            _digests[self.features] = self._digest()
        return replace(splits, train=self._replace(splits.train), validation=self._replace(splits.validation))

    def _digest(self) -> bytes:
        parts = self.features.get_config(), keras.__version__
        made_of = hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode())
        for weight in self.features.get_weights():
            made_of.update(np.ascontiguousarray(weight).data)
        return made_of.digest()

    def _replace(self, part: ImageSet) -> ImageSet:
        made_of = hashlib.sha256(_digests[self.features] + b"".join(part.digests))
        found = keep(self.folder, made_of.hexdigest(), lambda: self._compute(part.images))
        return replace(part, images=found)

    def _compute(self, images: np.ndarray) -> np.ndarray:
        answer = tf.function(lambda batch: self.features(batch, training=False), reduce_retracing=True, autograph=False)
        starts = range(0, len(images), BATCH)
        return np.concatenate([answer(images[start : start + BATCH]).numpy() for start in starts]).astype(np.float32)


def keep(folder: Path | None, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Returns the array that is kept under a key; if there is none, or it is damaged, computes and keeps it."""
    if folder is None:
        return compute()
    path = folder / f"{key}.npy"
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[DIGEST:]).digest() == content[:DIGEST]:
            os.utime(path)
            return np.load(io.BytesIO(content[DIGEST:]), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        pass
    found = compute()
    buffer = io.BytesIO()
    np.save(buffer, found)
    with contextlib.suppress(OSError):  # no space, or no permission
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = folder / f"{key}.{os.getpid()}.new"
        temporary.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
        temporary.replace(path)
        remove_oldest(folder.iterdir(), LIMIT)
    return found
