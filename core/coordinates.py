"""Fields in coordinates of their irreps: what nonlinearities and norms that work irrep by irrep share.

A field of ρ(h) = Q (⊕ ψ_i(h)) Qᵀ has coordinates Qᵀx, in which each irrep ψ_i owns a run of components. The group
leaves the length of each run alone, so anything computed from lengths may multiply the run.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from parteq.core.fields import FieldType

__all__ = ["IrrepCoordinates", "as_channels", "as_fields"]


def as_fields(features: Tensor, type: FieldType) -> Tensor:
    """Return features (batch, c, *grid) as (batch, fields, components, positions); ``grid`` may be empty.

    Raises:
        RuntimeError: c is not the number of channels of ``type``.
    """
    batch, _, *grid = features.shape
    return features.reshape(batch, type.count, type.representation.size, math.prod(grid))


def as_channels(fields: Tensor, like: Tensor) -> Tensor:
    """Return (batch, fields, components, positions) as (batch, fields × components, *grid), the grid of ``like``."""
    return fields.reshape(like.shape[0], fields.shape[1] * fields.shape[2], *like.shape[2:])


class IrrepCoordinates(nn.Module):
    """Turns features of one type into coordinates of its irreps and back.

    Attributes:
        copy_of_component: for each component the position of its irrep in the field, shape (components,).
        averages: one row for each irrep of the field, which averages over its components.
        invariant: whether each component is a trivial irrep, shape (components, 1).
    """

    change: Tensor | None
    copy_of_component: Tensor
    averages: Tensor
    invariant: Tensor

    def __init__(self, type: FieldType) -> None:
        super().__init__()
        self.field_type = type
        rho = type.representation
        sizes = np.array([irrep.size for irrep in rho.irreps])
        copies = np.repeat(np.arange(len(sizes)), sizes)
        averages = (np.arange(len(sizes))[:, None] == copies) / sizes[:, None]
        trivial = np.array([irrep.is_trivial() for irrep in rho.irreps])
        change = None if np.array_equal(rho.basis, np.eye(rho.size)) else torch.from_numpy(rho.basis.copy())
        default = torch.get_default_dtype()
        self.register_buffer("change", None if change is None else change.to(default), persistent=False)
        self.register_buffer("copy_of_component", torch.from_numpy(copies), persistent=False)
        self.register_buffer("averages", torch.from_numpy(averages).to(default), persistent=False)
        self.register_buffer("invariant", torch.from_numpy(trivial[copies])[:, None], persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the coordinates of features (batch, c, *grid), shape (batch, fields, components, positions)."""
        fields = as_fields(features, self.field_type)
        return fields if self.change is None else self.change.T @ fields

    def inverse(self, coordinates: Tensor, like: Tensor) -> Tensor:
        """Return the features with the given coordinates, shape (batch, c, *grid), the grid of ``like``."""
        return as_channels(coordinates if self.change is None else self.change @ coordinates, like)
