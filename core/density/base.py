"""What every density is, and how its coefficients are laid out.

λ̂ is held as one flat vector, the blocks of the irreps one after the other, each row-major; :class:`BlockLayout` says
where.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from parteq.core.groups import Element, FloatArray, Irrep, SymmetryGroup
from parteq.core.intertwiners import copies_of_irrep

__all__ = ["BlockLayout", "Density", "irreps_at", "multiplicity"]


@dataclass(frozen=True)
class BlockLayout:
    """Where the block of each irrep of frequency at most ``band`` stands in a flat vector of coefficients."""

    sizes: tuple[int, ...]
    """Sizes d of the irreps, in the order of ``group.irreps(band)``."""

    @classmethod
    def of(cls, group: SymmetryGroup, band: int) -> BlockLayout:
        """Return the layout of all irreps of ``group`` up to ``band``."""
        return cls(tuple(irrep.size for irrep in group.irreps(band)))

    @property
    def offsets(self) -> list[int]:
        """Start of each block; one more entry gives the total length."""
        return [0, *np.cumsum([size**2 for size in self.sizes]).tolist()]

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return the d × d blocks of a flat vector."""
        blocks = torch.split(flat, [size**2 for size in self.sizes])
        return [block.view(size, size) for block, size in zip(blocks, self.sizes, strict=True)]


def irreps_at(group: SymmetryGroup, band: int, elements: Sequence[Element]) -> FloatArray:
    """Return the flattened irreps at each element, shape (elements, sum of d²)."""
    irreps = group.irreps(band)
    return np.stack([np.concatenate([irrep(h).reshape(-1) for irrep in irreps]) for h in elements])


def multiplicity(irrep: Irrep) -> float:
    """Return d / c: how often functions on the group hold the irrep (c = 1, 2, 4 for real, complex, quaternionic)."""
    return float(irrep.size / irrep.sum_of_squares_constituents)


class Density(nn.Module, ABC):
    """A density over ``group`` with coefficients up to ``band``.

    Calling it returns λ̂ as a flat tensor (see :class:`BlockLayout`). Layers own their density; passing one object to
    several layers shares it.
    """

    def __init__(self, group: SymmetryGroup, band: int) -> None:
        super().__init__()
        self.group = group
        self.band = band
        self.layout = BlockLayout.of(group, band)

    @abstractmethod
    def forward(self) -> Tensor:
        """Return λ̂, flat."""

    @abstractmethod
    def divergence_from_uniform(self) -> Tensor:
        """Return KL(λ ‖ uniform) in nats, at least 0."""

    def mean_matrix(self) -> Tensor:
        """Return M = ∫ λ(h) R(h) dh, with R(h) the action on points, shape (dimension, dimension).

        Its singular values are 0 where λ is uniform on SO(3), (1, 0, 0) where it is uniform on the turns about an axis,
        and 1 where λ = δ. λ is known up to a turn from the right, λ(h g), so it is the *left* singular vector that is
        the axis.
        """
        group = self.group
        mean = torch.zeros(group.dimension, group.dimension)
        for irrep, block in zip(group.irreps(self.band), self.coefficients(), strict=True):
            for copy in copies_of_irrep(group, group.matrix, group.dimension, 1, irrep):
                embedding = torch.from_numpy(copy).to(block)
                mean = mean.to(block) + embedding @ block @ embedding.T
        return mean

    @abstractmethod
    def aligned_values_at(self, elements: Sequence[Element]) -> list[float]:
        """Return λ(h g) at elements h, where g is a point at which λ is largest.

        This describes the same layer, peaked at the identity.
        """

    @abstractmethod
    def values_where(self, irrep_values: Tensor) -> Tensor:
        """Return λ (against Haar measure) where the flattened irreps take the values given, shape (points,)."""

    def density_at(self, elements: Sequence[Element]) -> Tensor:
        """Return λ (against Haar measure) at any elements of the group, shape (elements,)."""
        device = next(self.buffers()).device
        return self.values_where(torch.from_numpy(irreps_at(self.group, self.band, elements)).to(device))

    def coefficients(self) -> list[Tensor]:
        """Return λ̂(ψ) as one d × d tensor for each irrep of ``group.irreps(band)``."""
        return self.layout.split(self())
