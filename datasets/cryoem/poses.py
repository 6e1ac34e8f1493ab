"""Poses: RELION's Euler angles and rotation matrices, and random orientations to simulate with.

The angles (rot, tilt, psi) are those of the ZYZ convention about axes that turn with the particle:

    R = Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).as_matrix().T,      o(x, y) = ∫ φ(Rᵀ (x, y, z)) dz.

The particle is seen along its own direction Rᵀ e_z = (sin tilt cos rot, sin tilt sin rot, cos tilt); psi turns the
image in its plane.
"""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation
from scipy.stats import vonmises_fisher

__all__ = ["euler_angles", "preferred_rotations", "rotations_of_angles", "uniform_rotations"]

Angles = Float64[np.ndarray, "n 3"]
Rotations = Float64[np.ndarray, "n 3 3"]

# Of particles that lie on the air-water interface: how many do, and how closely about their axis.
_LYING = 0.8
_CONCENTRATION = 20.0


def rotations_of_angles(angles_in_degrees: Angles) -> Rotations:
    """R of (rot, tilt, psi), float64 [N, 3, 3]."""
    angles = np.asarray(angles_in_degrees, dtype=np.float64).reshape(-1, 3)
    return np.ascontiguousarray(Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().transpose(0, 2, 1))


def euler_angles(rotations: Rotations) -> Angles:
    """(rot, tilt, psi) in degrees of R, float64 [N, 3]; tilt from 0 to 180, the others from −180 to 180.

    Where tilt is 0 or 180 only the sum or the difference of the others is defined; psi is then 0.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gimbal lock", UserWarning)
        turned = Rotation.from_matrix(np.asarray(rotations, dtype=np.float64).transpose(0, 2, 1))
        return np.asarray(turned.as_euler("ZYZ", degrees=True))


def uniform_rotations(n: int, generator: np.random.Generator) -> Rotations:
    """Orientations of which none is preferred: independent draws from the Haar measure of SO(3)."""
    return np.asarray(Rotation.random(n, generator).as_matrix())


def preferred_rotations(n: int, generator: np.random.Generator) -> Rotations:
    """Orientations of particles that adsorb to the air-water interface.

    Four in five are seen near the map's z axis, from above or below alike: von Mises-Fisher with κ = 20, a spread of
    some 18°. The others are seen from anywhere. The angle in the plane is uniform.
    """
    rotations = uniform_rotations(n, generator)
    lying = generator.random(n) < _LYING
    directions = vonmises_fisher([0.0, 0.0, 1.0], _CONCENTRATION, seed=generator).rvs(n)
    directions *= generator.choice([-1.0, 1.0], n)[:, None]
    x, y, z = directions.T
    angles = np.stack([np.arctan2(y, x), np.arccos(np.clip(z, -1, 1)), generator.uniform(-np.pi, np.pi, n)], -1)
    rotations[lying] = rotations_of_angles(np.rad2deg(angles[lying]))
    return rotations
