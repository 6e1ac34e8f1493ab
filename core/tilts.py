"""λ against tilt: what a density on SO(3) or O(3) says of the direction that its axis has in space.

The weights of a kernel absorb any orthogonal matrix U in λ̂(ψ) U, of each irrep its own, so a layer does not tell λ̂ but
its positive part (λ̂ λ̂ᵀ)^½, which is λ̂ of the same layer *aligned*: no irrep leans elsewhere than the others, and for λ
uniform on a coset of a subgroup it is uniform on the subgroup. Its mean over the turns about an axis n depends on h
through v = h⁻¹n alone, a point of the sphere,

    λ(v)  =  ∫_K λ(k h) dk  =  Σ_ψ d_ψ Y_ψ(v)ᵀ (λ̂ λ̂ᵀ)^½ Y_ψ(n),

with Y_ψ(n) the unit vector that ψ of turns about n leaves alone (d_ψ the size of ψ). It is 1 everywhere where the
symmetry is full, and the tilt is the angle from n to v. Of λ this is what kernels see, frequencies up to its band;
where they end at a sharp peak it can dip below 0.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from parteq.core.density import Density
from parteq.core.groups import FloatArray, Irrep, SymmetryGroup
from parteq.core.subgroups import element_with_matrix

__all__ = ["tilt_map", "tilt_means", "tilt_profile"]

_AROUND = 8  # directions at one tilt


def tilt_profile(density: Density, axis: FloatArray, tilts_in_degrees: FloatArray) -> FloatArray:
    """Return the mean of λ (against uniform) at each tilt, shape (tilts,).

    Args:
        density: on SO(3) or O(3), of which the proper rotations are taken.
        axis: n, a unit vector, see :func:`~parteq.core.measure.measure_axis`.
        tilts_in_degrees: from 0, at the axis, to 180.
    """
    first, second, _ = _frame(axis).T
    around = 2 * np.pi * np.arange(_AROUND)[:, None] / _AROUND
    around = np.cos(around) * first + np.sin(around) * second
    tilts = np.radians(tilts_in_degrees)[:, None, None]
    directions = np.cos(tilts) * axis + np.sin(tilts) * around
    profile: FloatArray = tilt_means(density, axis, directions.reshape(-1, 3)).reshape(-1, _AROUND).mean(1)
    return profile


def tilt_map(density: Density, axis: FloatArray, longitudes: FloatArray, latitudes: FloatArray) -> FloatArray:
    """Return λ(v) (against uniform) on a grid, shape (latitudes, longitudes).

    Args:
        density, axis: as for :func:`tilt_profile`.
        longitudes, latitudes: in radians.
    """
    longitude, latitude = np.meshgrid(longitudes, latitudes)
    across = np.cos(latitude)
    directions = np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)], axis=-1)
    return tilt_means(density, axis, directions.reshape(-1, 3)).reshape(longitude.shape)


def tilt_means(density: Density, axis: FloatArray, directions: FloatArray) -> FloatArray:
    """Return λ(v) (against uniform) at directions (n, 3), shape (n,)."""
    group = density.group
    means = np.zeros(len(directions))
    for irrep, block in zip(group.irreps(density.band), density.coefficients(), strict=True):
        left, values, _ = np.linalg.svd(block.detach().double().cpu().numpy())
        (there,) = _harmonics(group, irrep, axis[None])
        means += irrep.size * _harmonics(group, irrep, directions) @ (left * values) @ (left.T @ there)
    return means


def _harmonics(group: SymmetryGroup, irrep: Irrep, directions: FloatArray) -> FloatArray:
    """Return at each direction the unit vector that the irrep of turns about it leaves alone, shape (n, size)."""
    count = 2 * irrep.size  # enough turns for its frequency
    about_z = Rotation.from_rotvec(2 * np.pi / count * np.arange(count)[:, None] * np.array([0.0, 0.0, 1.0]))
    mean = np.mean([irrep(element_with_matrix(group, turn)) for turn in about_z.as_matrix()], axis=0)
    left_alone = np.linalg.svd(mean)[0][:, 0]
    return np.stack([irrep(element_with_matrix(group, _frame(v))) @ left_alone for v in directions])


def _frame(direction: FloatArray) -> FloatArray:
    """Return a rotation whose last column is the direction."""
    first = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(direction, first), direction], axis=1)
