"""The layers that networks of points are put together from, on one group of space with one density for all of them.

Data have one symmetry, so a network has one λ: what the layers learn of it adds up, and what it turned out to be can be
said in one sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from parteq.apps.points.lengths import Lengths
from parteq.core.axis import Axis
from parteq.core.density import make_density
from parteq.core.fields import FieldType, band_limited, direct_sum, regular, trivial
from parteq.core.fourier import FourierNonlinearity
from parteq.core.groups import Irrep, space_group
from parteq.core.implicit import ImplicitFilters
from parteq.core.layers import PartialLinear
from parteq.core.nonlinearity import GatedNonlinearity, PointwiseNonlinearity
from parteq.core.norm import FieldBatchNorm
from parteq.core.pointfilters import EdgeFilters, RadialHarmonics
from parteq.core.points import PartialPointConv

__all__ = ["PointBuilder"]

_BAND = 2  # of the fields of continuous groups
_INVARIANTS = 4  # for each irrep of a mixture
_DENSITY_BAND = 2  # of the logarithm of their densities: enough to tell an axis
_FREE_BAND = 8  # of all that kernels can hold: output 2, input 2, filters 4


class _Activation(nn.Module):
    """A norm and a nonlinearity, which take (batch, c, *grid), on features (nodes, c)."""

    def __init__(self, norm: FieldBatchNorm, nonlinearity: nn.Module) -> None:
        super().__init__()
        self.norm, self.nonlinearity = norm, nonlinearity

    def forward(self, features: Tensor) -> Tensor:
        """Map (nodes, c_in) to (nodes, c_out)."""
        output: Tensor = self.nonlinearity(self.norm(features.T[None]))
        return output[0].T


class PointBuilder:
    """Makes layers.

    Args:
        group: name of a group of space.
        degree: ``learned``, ``full`` or ``none``.
        axis: of a group about an axis: its direction, or ``None`` to learn it.
        kernel: ``analytic`` or ``implicit``.

    Raises:
        ValueError: an unknown group, degree or kernel, or an axis without direction.
    """

    def __init__(
        self, group: str, degree: str, axis: Sequence[float] | None = (0.0, 0.0, 1.0), kernel: str = "analytic"
    ) -> None:
        if kernel not in ("analytic", "implicit"):
            raise ValueError(f"unknown kernel {kernel!r}: use analytic or implicit")
        self.kernel = kernel
        self.group = space_group(group)
        self.density = make_density(self.group, degree, _FREE_BAND if degree == "none" else _DENSITY_BAND)
        self.axis = None
        if self.group.about_axis and self.group.algebra.order() != 1:
            self.axis = Axis(axis or (0.0, 0.0, 1.0), learned=axis is None)

    def functions(self, channels: float) -> FieldType:
        """Return fields of functions on the group, between which exactly equivariant linear maps have as many weights
        as plain ones of ``channels``."""
        rho = band_limited(self.group, _BAND) if self.group.continuous else regular(self.group)
        return FieldType(rho, max(1, round(channels / math.sqrt(rho.size))))

    def irreps(self, channels: float) -> FieldType:
        """Return fields that cost less, for every point: each irrep once; functions where the group is finite."""
        return self._fields(channels, dict.fromkeys(self.group.irreps(_BAND), 1))

    def mixture(self, channels: float, frequency: int) -> FieldType:
        """Return fields mostly of invariants: each irrep of harmonics up to a frequency once, the trivial one four
        times; functions where the group is finite."""
        irreps = RadialHarmonics(1.0, 1, frequency).bank(self.group).irreps
        return self._fields(channels, dict.fromkeys(irreps, 1) | {self.group.irreps(0)[0]: _INVARIANTS})

    def _fields(self, channels: float, copies: dict[Irrep, int]) -> FieldType:
        """Return fields with so many copies of each irrep, as many as cost the weights of ``channels``."""
        if not self.group.continuous:
            return self.functions(channels)
        weights = sum(count**2 for count in copies.values())
        return FieldType(direct_sum(self.group, copies), max(1, round(channels / math.sqrt(weights))))

    def invariants(self, channels: int) -> FieldType:
        """Return invariant channels."""
        return FieldType(trivial(self.group), channels)

    def filters(self, radius: float, shells: int, frequency: int, attributes: int) -> EdgeFilters:
        """Return filters of the kind asked for; analytic ones take no attributes of the edge."""
        if self.kernel == "analytic":
            return RadialHarmonics(radius, shells, frequency)
        options = {"attributes": attributes, "shells": shells, "frequency": frequency}
        return ImplicitFilters(radius, self.density, axis=self.axis, **options)

    def convolve(self, before: FieldType, after: FieldType, filters: EdgeFilters) -> PartialPointConv:
        """Return a convolution; a norm brings the bias."""
        axis = None if isinstance(filters, ImplicitFilters) else self.axis  # these are turned themselves
        return PartialPointConv(before, after, filters, self.density, bias=False, axis=axis)

    def linear(self, before: FieldType, after: FieldType) -> PartialLinear:
        """Return a linear map; a norm brings the bias."""
        return PartialLinear(before, after, self.density, bias=False)

    def rectify(self, type: FieldType) -> nn.Module:
        """Return a norm and a rectifier of functions on the group, or of invariants."""
        rectifier = (PointwiseNonlinearity if type.representation.permutes else FourierNonlinearity)(type)
        return _Activation(FieldBatchNorm(type), rectifier)

    def lengths(self, type: FieldType) -> tuple[FieldType, nn.Module]:
        """Return the type of the lengths of irreps, and a norm and the map onto them."""
        lengths = Lengths(type)
        return lengths.out_type, _Activation(FieldBatchNorm(type), lengths)

    def gate(self, type: FieldType, function: str = "relu") -> tuple[FieldType, nn.Module]:
        """Return the type that the layer before must give, and a norm and gates onto ``type``; the function is of
        invariants."""
        if type.representation.permutes:
            return type, self.rectify(type)
        gates = GatedNonlinearity(type, function)
        return gates.in_type, _Activation(FieldBatchNorm(gates.in_type), gates)
