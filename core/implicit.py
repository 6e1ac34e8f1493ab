"""Implicit filters: an equivariant network of the edge, in place of fixed functions of its vector.

After Zhdanov, Hoffmann and Cesa (arXiv 2212.06096), who let an H-equivariant network κ of the relative position x and
of attributes z of the edge give the kernel, vec K = κ(x, z). Its last layer is linear, so with φ the layer before it,

    K(x, z) = Σ_s K_s φ_s(x, z),

and the K_s, the weights of that last layer, are a kernel P_λ W like any other on the filters φ_s. A convolution then
needs no kernel for every edge; see :mod:`parteq.core.points`. With a density that is not uniform the layers of φ are
partially equivariant as well.

The network is residual (He et al., arXiv 1512.03385): what it makes of the edge is added to a linear map of what goes
in. So it starts from what analytic filters span, and learns what they lack.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from parteq.core.axis import Axis
from parteq.core.density import Density
from parteq.core.fields import FieldType, Representation, direct_sum
from parteq.core.filters import FilterBank
from parteq.core.groups import SymmetryGroup
from parteq.core.layers import PartialLinear
from parteq.core.nonlinearity import GatedNonlinearity, PointwiseNonlinearity
from parteq.core.pointfilters import EdgeFilters, RadialHarmonics

__all__ = ["ImplicitFilters"]


class ImplicitFilters(EdgeFilters):
    """Filters that a small network makes of solid harmonics on shells and of attributes of the edge.

    Args:
        radius: of the outermost shell, see :class:`~parteq.core.pointfilters.RadialHarmonics`.
        density: λ on a group of space, of the network's layers.
        attributes: invariant numbers of each edge.
        shells: as in :class:`~parteq.core.pointfilters.RadialHarmonics`.
        frequency: highest degree of the harmonics that go in, and highest frequency of the filters.
        fields: how often every irrep is among the filters; by default once for each shell, at least four times.
        hidden: layers with a nonlinearity.
        axis: of a group about an axis, given or learned; by default z.
    """

    mixing: Tensor

    def __init__(
        self,
        radius: float,
        density: Density,
        *,
        attributes: int = 0,
        shells: int = 3,
        frequency: int = 2,
        fields: int | None = None,
        hidden: int = 2,
        axis: Axis | None = None,
    ) -> None:
        super().__init__()
        group = density.group
        self.axis, self.attributes = axis, attributes
        self.harmonics = RadialHarmonics(radius, shells, frequency)
        bank = self.harmonics.bank(group)
        self.register_buffer(
            "mixing", torch.from_numpy(bank.values.copy()).to(torch.get_default_dtype()), persistent=False
        )
        invariant = group.irreps(0)[0]
        irreps = (*bank.irreps, *[invariant] * attributes)
        type = FieldType(Representation("edge", group, irreps, np.eye(sum(irrep.size for irrep in irreps))), 1)
        # Of those that harmonics have: without products of features no others come up where the symmetry is full.
        self.out_type = FieldType(direct_sum(group, dict.fromkeys(bank.irreps, 1)), fields or max(shells, 4))
        self.shortcut = PartialLinear(type, self.out_type, density, bias=False)
        self.layers, self.nonlinearities = nn.ModuleList(), nn.ModuleList()
        for _ in range(hidden):
            gate = _nonlinearity(self.out_type)
            self.layers.append(PartialLinear(type, gate.in_type, density))
            self.nonlinearities.append(gate)
            type = self.out_type

    def bank(self, group: SymmetryGroup) -> FilterBank:
        """Return how the group of the density acts on the values.

        Raises:
            ValueError: another group.
        """
        if group is not self.out_type.group:
            raise ValueError(f"these filters are for {self.out_type.group}, not for {group}")
        irreps = self.out_type.representation.irreps * self.out_type.count
        return FilterBank(group, irreps, np.eye(self.out_type.channels))

    def forward(self, vectors: Tensor, attributes: Tensor | None = None) -> Tensor:
        """Return the filters at each edge, shape (edges, filters).

        Raises:
            ValueError: attributes are missing, or not asked for.
        """
        if (0 if attributes is None else attributes.shape[1]) != self.attributes:
            raise ValueError(f"these filters take {self.attributes} attributes of each edge")
        if self.axis is not None:
            vectors = vectors @ self.axis.rotation().to(vectors)
        values: Tensor = self.harmonics(vectors) @ self.mixing.T
        if attributes is not None:
            values = torch.cat([values, attributes], dim=1)
        learned = values
        for layer, nonlinearity in zip(self.layers, self.nonlinearities, strict=True):
            learned = nonlinearity(layer(learned).T[None])[0].T
        output: Tensor = self.shortcut(values) + learned
        return output


def _nonlinearity(type: FieldType) -> GatedNonlinearity | PointwiseNonlinearity:
    """Return gates, or a function of each number where the group leaves all of them alone."""
    if type.representation.permutes:
        return PointwiseNonlinearity(type, "silu")
    return GatedNonlinearity(type, "silu")
