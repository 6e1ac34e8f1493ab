"""Filters of point convolutions: functions of the vector from a point to its neighbour, and how the group turns them.

*Analytic* filters are solid harmonics times Gaussian shells,

    Y_l(x / r) · exp(−(r − r_i)² / 2w²),        r = √(|x|² + ε²),

with Y_l the spherical harmonics of degree l as homogeneous polynomials, so that they are smooth at x = 0, where those
of l > 0 vanish like r^l. Under a turn R they mix as the irrep of degree l of SO(3), and a group H that holds fewer
turns splits that irrep further. A kernel is a learned combination of them: harmonics times a learned radial profile.

What the filters hand to :class:`~parteq.core.points.PartialPointConv` is their values at each edge and a bank
(:class:`~parteq.core.filters.FilterBank`) that says how the group acts on those values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor, nn

from parteq.core.cache import cached_arrays
from parteq.core.filters import FilterBank, TurnableBank, harmonic_bank
from parteq.core.groups import FloatArray, SymmetryGroup, space_group
from parteq.core.sphere import spread_directions

__all__ = ["EdgeFilters", "RadialHarmonics"]

_SOFTNESS = 0.1  # ε in units of the distance between shells


class EdgeFilters(nn.Module, ABC):
    """Functions of the edges of a graph in space, on which a group acts. Layers given the same object share them."""

    @abstractmethod
    def bank(self, group: SymmetryGroup) -> FilterBank:
        """Return how ``group`` acts on the values; its sampled points are the values themselves."""

    @abstractmethod
    def forward(self, vectors: Tensor, attributes: Tensor | None = None) -> Tensor:
        """Return the values, shape (edges, filters).

        Args:
            vectors: from the target of each edge to its source, shape (edges, 3), in the unit of the radius.
            attributes: invariant numbers of each edge, shape (edges, attributes), where the filters take any.
        """


class RadialHarmonics(EdgeFilters):
    """Solid harmonics times Gaussian shells. Nothing in them is learned.

    Args:
        radius: of the outermost shell, which is largest there: nothing is cut off. Points farther away should be no
            neighbours.
        shells: number of shells, evenly spaced from 0 to ``radius``; a single one is a Gaussian about 0.
        frequency: highest degree l of the harmonics.

    Raises:
        ValueError: ``radius`` is not positive, or there is no shell.
    """

    radii: Tensor
    polynomials: Tensor

    def __init__(self, radius: float, shells: int = 3, frequency: int = 2) -> None:
        super().__init__()
        if not radius > 0 or shells < 1:
            raise ValueError(f"filters need a positive radius and a shell or more, not {radius} and {shells}")
        self.shells, self.frequency = shells, frequency
        self.spacing = radius / max(shells - 1, 1)
        default = torch.get_default_dtype()
        self.register_buffer("radii", torch.linspace(0, radius, shells, dtype=default), persistent=False)
        polynomials = torch.from_numpy(block_diag(*_polynomials(frequency))).to(default)
        self.register_buffer("polynomials", polynomials, persistent=False)

    def bank(self, group: SymmetryGroup) -> TurnableBank:
        """Return how ``group``, a group of space, acts on the values."""
        return _bank(group, self.shells, self.frequency)

    def forward(self, vectors: Tensor, attributes: Tensor | None = None) -> Tensor:
        """Return the filters at vectors (edges, 3), shape (edges, shells × (frequency + 1)²); shell by shell.

        Raises:
            ValueError: there are attributes, which these filters take none of.
        """
        if attributes is not None:
            raise ValueError("analytic filters take no attributes of edges: use ImplicitFilters")
        vectors = vectors.T.contiguous()
        soft = (vectors.square().sum(0) + (_SOFTNESS * self.spacing) ** 2).sqrt()
        width = 0.6 * self.spacing
        shells = torch.exp(-0.5 * ((soft - self.radii[:, None]) / width).square())
        monomials = [torch.ones_like(soft)[None]]
        for degree in range(1, self.frequency + 1):
            monomials.append(_times_vector(monomials[-1], vectors / soft, degree))
        harmonics = torch.cat(monomials).T @ self.polynomials
        return (shells.T[:, :, None] * harmonics[:, None]).flatten(1)


def _times_vector(monomials: Tensor, vectors: Tensor, degree: int) -> Tensor:
    """Return the monomials of x, y, z of one degree, (monomials, points), given those of the degree before.

    Those without x are the last ``degree`` of the degree before, that without x and y is the very last.

    Args:
        monomials: of the degree before, (monomials, points).
        vectors: (3, points).
        degree: 1 or more.
    """
    x, y, z = vectors
    return torch.cat([x * monomials, y * monomials[-degree:], z * monomials[-1:]])


@lru_cache(maxsize=16)
def _polynomials(frequency: int) -> list[FloatArray]:
    """Return for each degree the harmonics as polynomials, shape (monomials, 2 degree + 1); mean square 1.

    The harmonics are those of :func:`~parteq.core.filters.harmonic_bank`, which sampled on more points than there are
    monomials determine them.
    """

    def build() -> dict[str, FloatArray]:
        points = spread_directions(4 * (frequency + 1) ** 2)
        bank = harmonic_bank(space_group("so3"), points, np.ones(1), 1.0, [frequency])
        assert isinstance(bank, TurnableBank)
        directions, monomials = torch.from_numpy(points).T, torch.ones(1, len(points), dtype=torch.float64)
        tables, start = {}, 0
        for degree in range(frequency + 1):
            if degree:
                monomials = _times_vector(monomials, directions, degree)
            size = 2 * degree + 1
            values = np.sqrt(size) * bank.harmonics[start : start + size].T
            tables[str(degree)] = np.linalg.lstsq(monomials.T.numpy(), values, rcond=None)[0]
            start += size
        return tables

    tables = cached_arrays(f"harmonic polynomials|{frequency}", build)
    return [tables[str(degree)] for degree in range(frequency + 1)]


@lru_cache(maxsize=64)
def _bank(group: SymmetryGroup, shells: int, frequency: int) -> TurnableBank:
    """Return the bank whose points are the values of :class:`RadialHarmonics` themselves."""

    def build() -> dict[str, FloatArray]:
        # How shells are mixed does not depend on where they are sampled: one harmonic of each degree says it all.
        sampled = harmonic_bank(group, spread_directions(2), np.ones(shells), 1.0, [frequency] * shells)
        assert isinstance(sampled, TurnableBank)
        lengths = np.linalg.norm(sampled.mixing, axis=1, keepdims=True)
        identities = [group.irreps(frequency).index(irrep) for irrep in sampled.irreps]
        return {
            "mixing": sampled.mixing / lengths,
            "generators": sampled.generators,
            "irreps": np.array(identities),
        }

    stored = cached_arrays(f"radial harmonics|{group!r}|{shells} shells|{frequency}", build)
    everything = group.irreps(frequency)
    mixing = stored["mixing"]
    # The bank goes degree by degree, the values shell by shell.
    order = [
        shell * (frequency + 1) ** 2 + degree**2 + component
        for degree in range(frequency + 1)
        for shell in range(shells)
        for component in range(2 * degree + 1)
    ]
    harmonics = np.eye(mixing.shape[1])[order]
    return TurnableBank(
        group,
        tuple(everything[i] for i in stored["irreps"]),
        mixing @ harmonics,
        mixing,
        harmonics,
        stored["generators"],
    )
