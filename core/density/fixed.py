"""Densities that training does not change: uniform on a subgroup."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from parteq.core.density.base import Density, irreps_at, multiplicity
from parteq.core.groups import Element, FloatArray, SymmetryGroup

__all__ = ["FixedDensity"]

_ROUNDING = 1e-6  # of the entries of a projection


class FixedDensity(Density):
    """A density that is uniform on a subgroup: all of H (``full``), the identity alone (``none``), or any K between.

    Args:
        group: the group H.
        band: highest frequency of its coefficients.
        quadrature: elements of H and weights (summing to 1) that average over K up to ``band``; ``None`` is all of H.

    Raises:
        ValueError: what ``quadrature`` averages over is no subgroup.
    """

    flat: Tensor

    def __init__(
        self, group: SymmetryGroup, band: int, quadrature: tuple[Sequence[Element], FloatArray] | None = None
    ) -> None:
        super().__init__(group, band)
        if quadrature is None:
            self.exact = np.concatenate([np.full(i.size**2, float(i.is_trivial())) for i in group.irreps(band)])
        else:
            elements, weights = quadrature
            self.exact = weights @ irreps_at(group, band, elements)
            # The average over a subgroup, and over no other set, is an orthogonal projection.
            for block in self.layout.split(torch.from_numpy(self.exact)):
                off = max((block @ block - block).abs().max(), (block - block.T).abs().max())
                if off > _ROUNDING or abs(self.exact[0] - 1) > _ROUNDING:  # the trivial irrep comes first
                    raise ValueError(f"these elements of {group} and their weights average over no subgroup")
        self.register_buffer("flat", torch.from_numpy(self.exact).to(torch.get_default_dtype()), persistent=False)

    def forward(self) -> Tensor:
        """Return λ̂, flat."""
        return self.flat

    def values_where(self, irrep_values: Tensor) -> Tensor:
        """Return λ as far as its band goes, Σ_ψ (d / c) tr λ̂(ψ)ᵀ ψ(h), where the irreps take the values given."""
        copies = np.concatenate([np.full(i.size**2, multiplicity(i)) for i in self.group.irreps(self.band)])
        return irrep_values @ torch.from_numpy(copies * self.exact).to(irrep_values)

    def aligned_values_at(self, elements: Sequence[Element]) -> list[float]:
        """Return λ at each element; it peaks at the identity."""
        return [float(value) for value in self.density_at(elements)]

    def divergence_from_uniform(self) -> Tensor:
        """Return log ∫ λ² in nats, within the band.

        For λ uniform on a subgroup of finite index this is KL(λ ‖ uniform), the logarithm of the index.
        """
        copies = np.concatenate([np.full(i.size**2, multiplicity(i)) for i in self.group.irreps(self.band)])
        return torch.tensor(np.log((copies * self.exact**2).sum()))
