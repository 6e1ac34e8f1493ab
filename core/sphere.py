"""Directions spread evenly over the sphere."""

from __future__ import annotations

import numpy as np

from parteq.core.groups import FloatArray

__all__ = ["spread_directions"]


def spread_directions(count: int, *, half: bool = False) -> FloatArray:
    """Return unit vectors spread over the sphere, or over the half with z > 0: a Fibonacci lattice, shape (count, 3).

    >>> bool(np.abs(spread_directions(1000).mean(0)).max() < 0.01)
    True
    """
    z = 1 - (2 * np.arange(count) + 1) / (2 * count if half else count)
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    across = np.sqrt(1 - z**2)
    return np.stack([across * np.cos(angle), across * np.sin(angle), z], axis=1)
