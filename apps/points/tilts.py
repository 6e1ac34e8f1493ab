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
from parteq.core.sphere import spread_directions
from parteq.core.subgroups import element_with_matrix

__all__ = ["tilt_map", "tilt_profile"]

_TURNS, _DIRECTIONS = 8, 8
_SPHERE = 256  # directions of which the peak is one


@torch.no_grad()
def tilt_profile(density: LearnedDensity, axis: FloatArray, tilts_in_degrees: FloatArray) -> FloatArray:
    """Return the mean of λ (against uniform) at each tilt, shape (tilts,).

    Args:
        density: on SO(3) or O(3), of which the proper rotations are taken.
        axis: n, a unit vector, see :func:`~parteq.core.measure.measure_axis`.
        tilts_in_degrees: from 0, where λ is largest, to 180.
    """
    sphere = spread_directions(_SPHERE)
    peak = sphere[_means(density, axis, sphere).argmax()]
    across = _perpendicular(peak)
    around = 2 * np.pi * np.arange(_DIRECTIONS)[:, None] / _DIRECTIONS
    around = np.cos(around) * across + np.sin(around) * np.cross(peak, across)
    tilts = np.radians(tilts_in_degrees)[:, None, None]
    directions = np.cos(tilts) * peak + np.sin(tilts) * around
    profile: FloatArray = _means(density, axis, directions.reshape(-1, 3)).reshape(-1, _DIRECTIONS).mean(1)
    return profile


@torch.no_grad()
def tilt_map(density: LearnedDensity, axis: FloatArray, longitudes: FloatArray, latitudes: FloatArray) -> FloatArray:
    """Return λ(v) (against uniform) on a grid of the sphere, shape (latitudes, longitudes); angles in radians."""
    longitude, latitude = np.meshgrid(longitudes, latitudes)
    across = np.cos(latitude)
    directions = np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)], axis=-1)
    means: FloatArray = _means(density, axis, directions.reshape(-1, 3)).reshape(longitude.shape)
    return means


def _means(density: LearnedDensity, axis: FloatArray, directions: FloatArray) -> FloatArray:
    """Return λ(v) at directions (n, 3), shape (n,)."""
    angles = 2 * np.pi * np.arange(_TURNS) / _TURNS
    turns = Rotation.from_rotvec(angles[:, None] * axis).as_matrix()
    rotations = [turn @ _frame(axis) @ _frame(direction).T for direction in directions for turn in turns]
    values = density.density_at([element_with_matrix(density.group, rotation) for rotation in rotations])
    means: FloatArray = values.view(-1, _TURNS).mean(1).double().cpu().numpy()
    return means


def _perpendicular(direction: FloatArray) -> FloatArray:
    """Return a unit vector at right angles."""
    across = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
    unit: FloatArray = across / np.linalg.norm(across)
    return unit


def _frame(direction: FloatArray) -> FloatArray:
    """Return a rotation whose last column is the direction."""
    first = _perpendicular(direction)
    return np.stack([first, np.cross(direction, first), direction], axis=1)
