"""What points learn of their surroundings: convolutions over their nearest neighbours, one after the other.

Each layer adds to the features x_i of a point what it gathers from its neighbours j, through a bottleneck,

    x_i  ←  x_i + σ(A x_i + B norm(Σ_j w_ij K(p_j − p_i) C x_j)),

with p_i the positions, A, B and C linear, K the kernel of :class:`~parteq.core.points.PartialPointConv` and σ a norm
and gates. All layers share the filters that K is made of. The window

    w_ij  =  (1 − r²_ij / R²_i)₊

brings the furthest of the k neighbours, and what lies beyond the reach of a point, down to nothing. So features do not
jump where several points are equally far away, as they are in many a molecule, and some of them are not among the k
nearest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from parteq.apps.points.builder import PointBuilder
from parteq.core.fields import FieldType
from parteq.core.norm import FieldBatchNorm
from parteq.core.pointfilters import EdgeFilters

__all__ = ["LocalLayers"]

_WIDE, _NARROW = 32, 16
_BOND = 1.25  # the longest, in sums of two radii


class _Layer(nn.Module):
    """One of the layers."""

    def __init__(self, builder: PointBuilder, type: FieldType, narrow: FieldType, filters: EdgeFilters) -> None:
        super().__init__()
        before, self.activate = builder.gate(type, "silu")
        self.reduce = builder.linear(type, narrow)
        self.convolve = builder.convolve(narrow, narrow, filters)
        self.norm = FieldBatchNorm(narrow)
        self.expand = builder.linear(narrow, before)
        self.keep = builder.linear(type, before)

    def forward(self, features: Tensor, edges: Tensor, filters: Tensor, neighbours: int) -> Tensor:
        """Map features (points, c) to the same shape."""
        gathered = self.convolve(self.reduce(features), edges, filters, neighbours=neighbours)
        gathered = self.norm(gathered.T[None])[0].T
        output: Tensor = features + self.activate(self.expand(gathered) + self.keep(features))
        return output


class LocalLayers(nn.Module):
    """The layers, from invariant features of points to fields.

    Args:
        builder: makes the layers.
        in_type: type of the features that go in, a 1 and those of the data.
        layers: how many.
        neighbours: k, at least 2: the furthest weighs nothing.
        shells: how finely filters tell distances apart.
        frequency: highest degree of their harmonics, and highest frequency of the features.
        width: factor on the number of channels.
        attributes: what implicit kernels look at beside the relative position: ``features`` of both points, ``bonds``,
            which join points closer than 1.25 times the sum of their radii.
        radii: the radius of a point by its feature, in the unit of the positions, for bonds.

    Attributes:
        out_type: type of the features that come out.
    """

    radii: Tensor

    def __init__(
        self,
        builder: PointBuilder,
        in_type: FieldType,
        layers: int,
        neighbours: int,
        shells: int,
        frequency: int,
        width: float,
        attributes: Sequence[str] = (),
        radii: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.neighbours, self.attributes = neighbours, tuple(attributes)
        self.register_buffer("radii", torch.tensor(radii, dtype=torch.get_default_dtype()), persistent=False)
        count = 2 * (in_type.channels - 1) * ("features" in attributes) + ("bonds" in attributes)
        self.filters = builder.filters(1.0, shells, frequency, count)
        self.out_type = builder.mixture(_WIDE * width, frequency)
        narrow = builder.mixture(_NARROW * width, frequency)
        self.embed = builder.linear(in_type, self.out_type)
        self.layers = nn.ModuleList(_Layer(builder, self.out_type, narrow, self.filters) for _ in range(layers))

    def forward(
        self,
        positions: Float[Tensor, "points 3"],
        features: Float[Tensor, "points c_in"],
        neighbours: Int[Tensor, "points k"],
        reach: Float[Tensor, " points"],
    ) -> Float[Tensor, "points c_out"]:
        """Map features of points.

        Args:
            positions: of the points of all clouds.
            features: of them.
            neighbours: their nearest others by number, −1 where there are no more.
            reach: how far each point sees, in the unit of the positions.
        """
        count, k = neighbours.shape
        target = torch.arange(count, device=positions.device)[:, None].expand(count, k)
        # Edges that are missing keep their place, so that all points have equally many, and weigh nothing.
        real = neighbours >= 0
        edges = torch.stack([torch.where(real, neighbours, target).flatten(), target.flatten()])
        vectors = (positions[edges[0]] - positions[edges[1]]).view(count, k, 3) / reach[:, None, None]
        squares = vectors.square().sum(-1)
        furthest = torch.where(real.all(1) & (k == self.neighbours), squares.amax(1), 1.0)
        window = real * (1 - squares / furthest.clamp(1e-12, 1.0)[:, None]).clamp_min(0)
        seen = self._attributes(features, edges, squares.sqrt() * reach[:, None]) if self.attributes else None
        filters = self.filters(vectors.flatten(0, 1), seen) * (k / self.neighbours * window).flatten()[:, None]
        features = self.embed(features)
        for layer in self.layers:
            features = layer(features, edges, filters, k)
        return features

    def _attributes(self, features: Tensor, edges: Tensor, distances: Tensor) -> Tensor:
        """Return what the kernels look at, shape (edges, attributes)."""
        ends = features[edges[0], 1:], features[edges[1], 1:]
        found = list(ends) if "features" in self.attributes else []
        if "bonds" in self.attributes:
            longest = _BOND * ((ends[0] + ends[1]) @ self.radii)
            found.append((distances.flatten() < longest)[:, None].to(features))
        return torch.cat(found, dim=1)
