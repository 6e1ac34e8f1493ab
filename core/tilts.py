"""λ against tilt: what a density on SO(3) or O(3) says of the direction that its axis has in space.

A density that is uniform on the turns about an axis n depends on h through h⁻¹n alone, a point of the sphere. So the
mean of λ over those turns,

    λ(v)  =  ∫_K λ(k h) dk        for any h with h⁻¹n = v,

is a function on the sphere; it peaks at some m (which the kernel is free to choose), and the tilt is the angle to m.
Turning λ's argument from the right, an equal description, takes m to n.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from parteq.core.density import Density
from parteq.core.groups import FloatArray
from parteq.core.sphere import spread_directions
from parteq.core.subgroups import element_with_matrix

__all__ = ["tilt_map", "tilt_means", "tilt_profile"]

_TURNS, _DIRECTIONS = 8, 8
_SPHERE = 256  # directions of which the peak is one


def tilt_profile(density: Density, axis: FloatArray, tilts_in_degrees: FloatArray) -> FloatArray:
    """Return the mean of λ (against uniform) at each tilt, shape (tilts,).

    Args:
        density: on SO(3) or O(3), of which the proper rotations are taken.
        axis: n, a unit vector, see :func:`~parteq.core.measure.measure_axis`.
        tilts_in_degrees: from 0, where λ is largest, to 180.
    """
    peak = _peak(density, axis)
    across = _perpendicular(peak)
    around = 2 * np.pi * np.arange(_DIRECTIONS)[:, None] / _DIRECTIONS
    around = np.cos(around) * across + np.sin(around) * np.cross(peak, across)
    tilts = np.radians(tilts_in_degrees)[:, None, None]
    directions = np.cos(tilts) * peak + np.sin(tilts) * around
    profile: FloatArray = tilt_means(density, axis, directions.reshape(-1, 3)).reshape(-1, _DIRECTIONS).mean(1)
    return profile


def tilt_map(density: Density, axis: FloatArray, longitudes: FloatArray, latitudes: FloatArray) -> FloatArray:
    """Return λ(v) (against uniform), turned to peak at the axis, on a grid, shape (latitudes, longitudes).

    Args:
        density, axis: as for :func:`tilt_profile`.
        longitudes, latitudes: in radians.
    """
    longitude, latitude = np.meshgrid(longitudes, latitudes)
    across = np.cos(latitude)
    directions = np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)], axis=-1)
    to_peak = _frame(_peak(density, axis)) @ _frame(axis).T
    means: FloatArray = tilt_means(density, axis, directions.reshape(-1, 3) @ to_peak.T).reshape(longitude.shape)
    return means


def _peak(density: Density, axis: FloatArray) -> FloatArray:
    """Return the direction, of many, at which λ(v) is largest."""
    sphere = spread_directions(_SPHERE)
    peak: FloatArray = sphere[tilt_means(density, axis, sphere).argmax()]
    return peak


@torch.no_grad()
def tilt_means(density: Density, axis: FloatArray, directions: FloatArray) -> FloatArray:
    """Return λ(v) (against uniform) at directions (n, 3), shape (n,)."""
    angles = 2 * np.pi * np.arange(_TURNS) / _TURNS
    turns = Rotation.from_rotvec(angles[:, None] * axis).as_matrix() @ _frame(axis)
    lasts = [element_with_matrix(density.group, turn) for turn in turns]
    firsts = [element_with_matrix(density.group, _frame(direction)) for direction in directions]
    values = []  # of the irreps at k A Bᵀ, where A takes z to n and B takes it to v
    for irrep in density.group.irreps(density.band):
        last, first = (np.stack([irrep(element) for element in elements]) for elements in (lasts, firsts))
        values.append(np.einsum("kij,nlj->nkil", last, first, optimize=True).reshape(len(directions) * _TURNS, -1))
    found = density.values_where(torch.from_numpy(np.concatenate(values, axis=1)))
    means: FloatArray = found.view(-1, _TURNS).mean(1).double().cpu().numpy()
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
