"""The axis of a group about an axis: given, or learned with everything else.

A group about z acts about another axis n through the smallest rotation A that takes z to n: filters are sampled at
Aᵀx. Spherical harmonics of degree l turn among themselves, Y(Aᵀx) = exp(Σ_k ω_k G_k)ᵀ Y(x), where ω is the rotation
vector of A and G_k are the generators of the irrep, so the sampled filters are a differentiable function of n.
"""

from __future__ import annotations

from collections.abc import Sequence

import roma
import torch
from torch import Tensor, nn

__all__ = ["Axis"]


class Axis(nn.Module):
    """A direction in space; layers given the same object share it.

    Features that turn are in the frame of the axis: a vector v goes into a layer as Aᵀv, A = :meth:`rotation`.

    Args:
        direction: (x, y, z), any length but 0.
        learned: whether training turns it.

    Raises:
        ValueError: ``direction`` has no direction, or is −z, to which no smallest rotation leads (a group about −z is
            the group about z).
    """

    direction: Tensor

    def __init__(self, direction: Sequence[float] = (0.0, 0.0, 1.0), learned: bool = False) -> None:
        super().__init__()
        vector = torch.as_tensor(direction, dtype=torch.get_default_dtype())
        if vector.shape != (3,) or not bool(torch.isfinite(vector).all()) or not bool(vector.norm() > 0):
            raise ValueError(f"an axis is three numbers, not all zero; got {tuple(direction)}")
        vector = vector / vector.norm()
        if float(vector[2]) < -1 + 1e-6:
            raise ValueError("a group about -z is the group about z: give (0, 0, 1)")
        if learned:
            self.direction = nn.Parameter(vector)
        else:
            self.register_buffer("direction", vector)

    def forward(self) -> Tensor:
        """Return the unit vector along the axis, shape (3,)."""
        unit: Tensor = self.direction / self.direction.norm()
        return unit

    def rotation_vector(self) -> Tensor:
        """Return ω, shape (3,), in radians: the smallest rotation from z to the axis, along the line it turns about."""
        x, y, z = self().unbind()
        across = torch.stack([-y, x, torch.zeros_like(x)])
        square = x.square() + y.square()
        near = square < 1e-8
        sine = torch.where(near, torch.ones_like(square), square).sqrt()
        # angle / sin(angle) tends to 1 at the pole, where the quotient itself has no gradient.
        factor = torch.where(near, torch.ones_like(square), torch.atan2(sine, z) / sine)
        return across * factor

    def rotation(self) -> Tensor:
        """Return A, the smallest rotation from z to the axis, shape (3, 3)."""
        matrix: Tensor = roma.rotvec_to_rotmat(self.rotation_vector())
        return matrix
