"""λ against tilt: what a density on SO(3) or O(3) says of the direction that its axis has in space.

A density that is uniform on the turns about an axis n depends on h through h⁻¹n alone, a point of the sphere. So the
mean of λ over those turns,

    λ(v)  =  ∫_K λ(k h) dk        for any h with h⁻¹n = v,

is a function on the sphere; it peaks at some m (which the kernel is free to choose), and the tilt is the angle to m.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from parteq.core.density import LearnedDensity
from parteq.core.groups import FloatArray
from parteq.core.subgroups import element_with_matrix

__all__ = ["tilt_profile"]

_TURNS, _DIRECTIONS = 8, 8


@torch.no_grad()
def tilt_profile(density: LearnedDensity, tilts_in_degrees: FloatArray) -> FloatArray:
    """Return the mean of λ (against uniform) at each tilt, shape (tilts,).

    Args:
        density: on SO(3) or O(3), of which the proper rotations are taken.
        tilts_in_degrees: from 0, where λ is largest, to 180.
    """
    left, _, right = torch.linalg.svd(density.mean_matrix().double())
    axis, peak = left[:, 0].numpy(), right[0].numpy()
    group = density.group
    across = _perpendicular(peak)
    other = np.cross(peak, across)
    angles = 2 * np.pi * np.arange(_TURNS) / _TURNS
    turns = Rotation.from_rotvec(angles[:, None] * axis).as_matrix()
    values = []
    for tilt in np.radians(tilts_in_degrees):
        elements = []
        for direction in 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS:
            around = np.cos(direction) * across + np.sin(direction) * other
            carry = _frame(axis) @ _frame(np.cos(tilt) * peak + np.sin(tilt) * around).T
            elements += [element_with_matrix(group, turn @ carry) for turn in turns]
        values.append(float(density.density_at(elements).mean()))
    return np.array(values)


def _perpendicular(direction: FloatArray) -> FloatArray:
    """Return a unit vector at right angles."""
    across = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
    unit: FloatArray = across / np.linalg.norm(across)
    return unit


def _frame(direction: FloatArray) -> FloatArray:
    """Return a rotation whose last column is the direction."""
    first = _perpendicular(direction)
    return np.stack([first, np.cross(direction, first), direction], axis=1)
