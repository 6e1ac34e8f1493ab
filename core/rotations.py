"""Rotations that take z elsewhere."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from parteq.core.groups import FloatArray

__all__ = ["turn_z_to"]


def turn_z_to(direction: FloatArray) -> FloatArray:
    """Return the smallest rotation that takes z to a direction, of −z half a turn about y.

    Args:
        direction: of any length, shape (3,) or, for several, (n, 3); 0 counts as z.

    Returns:
        Rotation matrices, shape (3, 3) or (n, 3, 3).

    >>> turn_z_to(np.array([2.0, 0.0, 0.0])).round(6) + 0.0
    array([[ 0.,  0.,  1.],
           [ 0.,  1.,  0.],
           [-1.,  0.,  0.]])
    """
    x, y, z = direction.T
    tilt, longitude = np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)
    turn: FloatArray = Rotation.from_euler("ZYZ", np.stack([longitude, tilt, -longitude], axis=-1)).as_matrix()
    return turn
