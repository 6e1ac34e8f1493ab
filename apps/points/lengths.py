"""What is invariant of each irrep by itself: its length.

The group turns the components of an irrep into one another and leaves the root of their mean square alone, exactly,
where a nonlinearity of functions on a continuous group folds something back. Trivial irreps are kept as they are, with
their sign. Directions of irreps to one another are lost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from parteq.core.coordinates import IrrepCoordinates, as_channels
from parteq.core.fields import FieldType, trivial

__all__ = ["Lengths"]


class Lengths(nn.Module):
    """Map features to one invariant channel for each irrep of each field.

    Args:
        type: type of the input.
        epsilon: added to lengths, in the unit of the features, so that the gradient stays finite at 0.

    Attributes:
        out_type: type of the output.
    """

    invariant: Tensor

    def __init__(self, type: FieldType, epsilon: float = 1e-3) -> None:
        super().__init__()
        irreps = type.representation.irreps
        self.in_type = type
        self.out_type = FieldType(trivial(type.group), type.count * len(irreps))
        self.epsilon = epsilon
        self.coordinates = IrrepCoordinates(type)
        known = torch.tensor([irrep.is_trivial() for irrep in irreps])[:, None]
        self.register_buffer("invariant", known, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, c_in, *grid) to (batch, c_out, *grid)."""
        values, averages = self.coordinates(features), self.coordinates.averages
        lengths = (averages @ values.square() + self.epsilon**2).sqrt()
        return as_channels(torch.where(self.invariant, averages @ values, lengths), like=features)
