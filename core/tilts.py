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

from parteq.core.density import Density
from parteq.core.filters import spherical_harmonics
from parteq.core.groups import FloatArray
from parteq.core.rotations import turn_z_to

__all__ = ["tilt_map", "tilt_means", "tilt_profile"]

_AROUND = 8  # directions at one tilt


def tilt_profile(density: Density, axis: FloatArray, tilts_in_degrees: FloatArray) -> FloatArray:
    """Return the mean of λ (against uniform) at each tilt, shape (tilts,).

    Args:
        density: on SO(3) or O(3), of which the proper rotations are taken.
        axis: n, a unit vector, see :func:`~parteq.core.measure.measure_axis`.
        tilts_in_degrees: from 0, at the axis, to 180.
    """
    about_z = _directions(2 * np.pi * np.arange(_AROUND) / _AROUND, np.radians(90.0 - tilts_in_degrees))
    profile: FloatArray = tilt_means(density, axis, about_z @ turn_z_to(axis).T).reshape(-1, _AROUND).mean(1)
    return profile


def tilt_map(density: Density, axis: FloatArray, longitudes: FloatArray, latitudes: FloatArray) -> FloatArray:
    """Return λ(v) (against uniform) on a grid, shape (latitudes, longitudes).

    Args:
        density, axis: as for :func:`tilt_profile`.
        longitudes, latitudes: in radians.
    """
    return tilt_means(density, axis, _directions(longitudes, latitudes)).reshape(len(latitudes), len(longitudes))


def tilt_means(density: Density, axis: FloatArray, directions: FloatArray) -> FloatArray:
    """Return λ(v) (against uniform) at directions (n, 3), shape (n,)."""
    group = density.group
    means = np.zeros(len(directions))
    for irrep, block in zip(group.irreps(density.band), density.coefficients(), strict=True):
        left, values, _ = np.linalg.svd(block.detach().double().cpu().numpy())
        degree = group.frequency(irrep)
        (there,) = spherical_harmonics(degree, axis[None])
        means += irrep.size * spherical_harmonics(degree, directions) @ (left * values) @ (left.T @ there)
    return means


def _directions(longitudes: FloatArray, latitudes: FloatArray) -> FloatArray:
    """Return the unit vectors of a grid, in radians, row by row of one latitude, shape (latitudes × longitudes, 3)."""
    longitude, latitude = np.meshgrid(longitudes, latitudes)
    across = np.cos(latitude)
    x, y = across * np.cos(longitude), across * np.sin(longitude)
    directions: FloatArray = np.stack([x, y, np.sin(latitude)], axis=-1)
    return directions.reshape(-1, 3)
