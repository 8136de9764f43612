"""Turns images of any range of numbers into bytes: from 0 to 1, or from 0 to 255."""

import numpy as np

from mnist_exp.errors import DataError, Problem

OVERSHOOT = 0.05  # how far interpolation may take numbers from 0 to 1 out of this range; they are cut


def to_bytes(images: np.ndarray, where: str, notes: list[str]) -> np.ndarray:
    """Returns images as uint8, 0-255, and adds to `notes` what that changes.

    images: numbers from 0 to 255 or from 0 to 1, or whole numbers that are all 0 or 1. Raises DataError for others.
    """
    if images.dtype == bool:
        notes.append("true and false became 255 and 0")
        return images.astype(np.uint8) * np.uint8(255)
    if images.dtype.kind not in "iuf" or not images.size:
        raise DataError(Problem(f"{where}: images", "must be numbers", str(images.dtype)))
    low, high = float(images.min()), float(images.max())
    if not np.isfinite(high - low):
        raise DataError(Problem(f"{where}: images", "must be finite numbers", f"{low} to {high}"))
    is_real = images.dtype.kind == "f"
    is_share = is_real and low >= -OVERSHOOT and high <= 1 + OVERSHOOT
    if not is_share and (low < 0 or high > 255 or (is_real and high < 2)):
        rule, remedy = "must be from 0 to 1 or from 0 to 255", "scale all of them alike, (images - low) / (high - low)"
        raise DataError(Problem(f"{where}: images", rule, f"{low:g} to {high:g}", remedy))
    if not is_real:
        if low == 0 and high == 1:
            notes.append("images of the numbers 0 and 1 only: 1 became 255")
            return images.astype(np.uint8) * np.uint8(255)
        return images.astype(np.uint8, copy=False)
    if is_share and (low < 0 or high > 1):
        notes.append(f"numbers from {low:.4g} to {high:.4g} were cut to 0 to 1")
    scaled = np.clip(images.astype(np.float64), 0, 1) * 255 if is_share else images.astype(np.float64)
    rounded = np.rint(scaled)
    loss = float(np.abs(scaled - rounded).max())
    span = "0 to 1" if is_share else "0 to 255"
    notes.append(f"numbers from {span} became whole numbers from 0 to 255, at most {loss:.2g} away")
    return rounded.astype(np.uint8)
