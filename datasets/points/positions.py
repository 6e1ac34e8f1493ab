"""Positions in 32 bits, which is how clouds are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["LARGEST", "as_float32"]

LARGEST = 1e15
"""Coordinates of clouds are at most this: their squares, and sums of these, are far from the end of 32 bits."""

_FAR = 1e3  # from the origin, in units of the size of a cloud


def as_float32(points: NDArray[np.number], sizes: ArrayLike) -> NDArray[np.float32]:
    """Positions in 32 bits. Clouds so far from the origin that they would lose their shape are moved to their centroid.

    Args:
        points: [sum n, 3], the clouds one behind the other.
        sizes: points in each cloud [N], at least 1.
    """
    counts = np.asarray(sizes)
    if points.dtype.kind != "f" or points.dtype.itemsize <= 4 or not len(points):
        return points.astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused by who reads it
        centres = np.add.reduceat(points, starts) / counts[:, None]
        spreads = np.maximum.reduceat(np.abs(points - np.repeat(centres, counts, axis=0)).max(1), starts)
        far = np.abs(centres).max(1) > _FAR * spreads
        far &= spreads > 0
        return (points - np.repeat(np.where(far[:, None], centres, 0.0), counts, axis=0)).astype(np.float32)
