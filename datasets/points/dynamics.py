"""Particles joined by springs, whose surroundings break as much symmetry as is asked for.

Every pair of particles of mass 1 is joined by a spring of stiffness s and natural length ℓ. A spring of stiffness k
pulls each towards the plane through the origin normal to the axis a, and gravity g along −a:

    ẍᵢ = s Σⱼ (1 − ℓ / |xⱼ − xᵢ|) (xⱼ − xᵢ) − k (a·xᵢ) a − g a

With k = g = 0 motion commutes with all of O(3); with k > 0 with what keeps the plane: turns about a, turning over, and
their mirrors; with g > 0 with what keeps a: turns about it, and mirrors that contain it. Velocity Verlet integrates the
motion; it keeps the energy up to the square of its step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Motions", "Surroundings", "simulate"]

# Steps in a unit of time, in which a spring of stiffness 1 turns by one radian.
_STEPS = 200


@dataclass(frozen=True)
class Surroundings:
    """What acts on the particles; all in units in which their mass is 1.

    Attributes:
        spring_stiffness: s, of the springs between particles.
        natural_length: ℓ, of these springs.
        plane_stiffness: k, of the springs towards the plane.
        gravity: g.
        axis: a, of any length but 0.
    """

    spring_stiffness: float = 1.0
    natural_length: float = 1.0
    plane_stiffness: float = 0.0
    gravity: float = 0.0
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def _axis(self) -> NDArray[np.float64]:
        axis = np.array(self.axis)
        length = np.linalg.norm(axis)
        if not length > 0:
            raise ValueError("the axis must not be zero")
        return axis / length

    def accelerations(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of particles at these positions, both [N, n, 3]. Raises ValueError for an axis of length 0."""
        axis = self._axis()
        apart, lengths = _pairs(positions)
        pull = self.spring_stiffness * (1 - self.natural_length / lengths)
        springs = (pull[..., None] * apart).sum(2)
        return springs - (self.plane_stiffness * (positions @ axis) + self.gravity)[..., None] * axis

    def energy(self, positions: NDArray[np.float64], velocities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each system [N], kinetic and potential, of particles with these positions and velocities [N, n, 3]."""
        _, lengths = _pairs(positions)
        heights = positions @ self._axis()
        stretched = np.triu(lengths - self.natural_length, 1)
        springs = self.spring_stiffness * (stretched**2).sum((1, 2)) / 2
        plane = self.plane_stiffness * (heights**2).sum(1) / 2 + self.gravity * heights.sum(1)
        return (velocities**2).sum((1, 2)) / 2 + springs + plane

    def move(
        self, positions: NDArray[np.float64], velocities: NDArray[np.float64], duration: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions and velocities [N, n, 3] after a time."""
        steps = max(1, round(duration * _STEPS))
        step = duration / steps
        force = self.accelerations(positions)
        for _ in range(steps):
            halfway = velocities + step / 2 * force
            positions = positions + step * halfway
            force = self.accelerations(positions)
            velocities = halfway + step / 2 * force
        return positions, velocities


def _pairs(positions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of all pairs xⱼ − xᵢ [N, n, n, 3] and its length [N, n, n], which is 1 on the diagonal."""
    apart = positions[:, None] - positions[:, :, None]
    lengths = np.linalg.norm(apart, axis=-1) + np.eye(positions.shape[1])
    return apart, np.maximum(lengths, 1e-9)


@dataclass(frozen=True)
class Motions:
    """N systems of n particles: how they begin, and what becomes of them. All vectors turn with the system.

    Attributes:
        positions: at the beginning, float32 [N, n, 3].
        velocities: at the beginning, float32 [N, n, 3].
        displacements: where each particle is after the duration, from where it would be by its velocity alone; what is
            to be predicted, float32 [N, n, 3].
        duration: the time between.
    """

    positions: Float[Tensor, "N n 3"]
    velocities: Float[Tensor, "N n 3"]
    displacements: Float[Tensor, "N n 3"]
    duration: float


def simulate(
    surroundings: Surroundings, count: int, seed: int, *, particles: int = 5, duration: float = 1.0
) -> Motions:
    """Draw systems of particles and let them move. The beginnings do not depend on the surroundings.

    Args:
        surroundings: what acts on them.
        count: how many systems.
        seed: equal seeds draw equally.
        particles: of each system.
        duration: the time they are given.

    Returns:
        Systems whose positions and velocities begin normally distributed, alike in all directions.

    Raises:
        ValueError: an axis of length 0.
    """
    generator = np.random.default_rng(seed)
    positions, velocities = generator.standard_normal((2, count, particles, 3))
    end, _ = surroundings.move(positions, velocities, duration)
    displacements = end - positions - duration * velocities
    begin, speed, change = (torch.from_numpy(v.astype(np.float32)) for v in (positions, velocities, displacements))
    return Motions(begin, speed, change, duration)
