"""Where a map stands, as seen from another, and what that makes of the poses of its particles.

Let φ̂(x) = φ(A x + t) with A in O(3). A pose says o(p) = ∫ φ(Rᵀ(p − s, z)) dz, where s is where the particle's centre
stands. Put H = 1 if A is proper, and H = diag(1, 1, −1) if it is not, when the map is mirrored. Of R̂ = H R A there is
with z' = H z

    φ̂(R̂ᵀ(p − ŝ, z)) = φ(Rᵀ H (p − ŝ, z) + t) = φ(Rᵀ((p − ŝ, z') + R t)),

the integral of which over z is the same image if ŝ = s + P R t, P being the projection along z. So the pose R̂, ŝ of φ̂
is the pose R = H R̂ Aᵀ, s = ŝ − P R t of φ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["SAME_PLACE", "Placement", "Rotations", "Shifts"]

Rotations = Float[np.ndarray, "particles 3 3"]
Shifts = Float[np.ndarray, "particles 2"]


@dataclass(frozen=True)
class Placement:
    """φ̂(x) = φ(A x + t): where an estimated map lies, as seen from the true one.

    Attributes:
        matrix: A, orthogonal; its determinant is −1 if the estimated map is mirrored.
        offset: t, (x, y, z) in the unit of shifts.
    """

    matrix: Float[np.ndarray, "3 3"]
    offset: Float[np.ndarray, "3"]

    @property
    def hand(self) -> str:
        """``same`` or ``mirrored``."""
        return "same" if np.linalg.det(self.matrix) > 0 else "mirrored"

    def rotations_in_true_frame(self, estimated: Rotations) -> Rotations:
        """H R̂ Aᵀ, what the estimates are as poses of the true map."""
        half_turn = np.diag([1.0, 1.0, np.sign(np.linalg.det(self.matrix))])
        return half_turn @ estimated @ self.matrix.T

    def shifts_in_true_frame(self, estimated: Rotations, shifts: Shifts) -> Shifts:
        """ŝ − P H R̂ Aᵀ t, what the estimated shifts are about the origin of the true map."""
        moved: Shifts = shifts - self.rotations_in_true_frame(estimated)[:, :2] @ self.offset
        return moved


SAME_PLACE = Placement(np.eye(3), np.zeros(3))
"""Of a map as seen from itself."""
