"""Groups of images that must not be on two sides of a split: of one patient, one writer, one camera."""

import re
from collections.abc import Sequence

import numpy as np

from mnist_exp.errors import DataError, Problem


def group_by_path(paths: Sequence[str], pattern: str) -> np.ndarray:
    """Returns the number of the group of each path, int64 (n,).

    pattern: a regular expression; what its first group matches, else the whole match, names the group of the image.
    Raises DataError for a pattern that is no regular expression or that a path does not match.
    """
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        rule = f"must be a regular expression ({error})"
        raise DataError(Problem("dataset.group", rule, pattern, "such as 'camera_([0-9]+)'")) from error
    names = []
    for path in paths:
        found = wanted.search(path)
        if found is None:
            rule = f"must match the path of every image, but does not match {path}"
            raise DataError(Problem("dataset.group", rule, pattern, "write one that does, or move the image away"))
        names.append(found[1] if wanted.groups else found[0])
    return number_groups(names)


def number_groups(names: Sequence[object]) -> np.ndarray:
    """Returns the number of each name among the different ones, int64 (n,)."""
    _, numbers = np.unique(np.array([str(name) for name in names]), return_inverse=True)
    return numbers.astype(np.int64)
