"""What lies about a few points of a cloud: a convolution from all points to nodes that are far apart.

Nodes are points of the cloud, found by farthest-point sampling from the one furthest from the centroid on, so that a
turned cloud has the turned nodes. With p_i their positions and x_j the points, features are

    f_i  =  σ(Σ_j w_ij K(x_j − p_i) a_j),        w_ij ∝ (1 − r²_ij / R²_i)₊,

over the nearest eighth of the points (at least 8), with weights that add up to 1 and fall to nothing at the furthest
of them, K the kernel of :class:`~parteq.core.points.PartialPointConv`, a_j the features of the points (a 1 and those of
the data) and σ a norm and gates. As what goes in has few channels, this is cheap though a patch holds many points.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from parteq.apps.points.builder import PointBuilder
from parteq.core.fields import FieldType
from parteq.datasets.points.neighbours import farthest_of_clouds

__all__ = ["Patches"]

_SHARE, _LEAST = 8, 8  # a patch holds one in so many points of the cloud, and no fewer than that
_REACH = 0.9  # of the shells, in units of the spread of a cloud
_SHELLS, _FREQUENCY = 4, 2
_CHANNELS = 24


class Patches(nn.Module):
    """Features of patches, (clouds, points, c_in) → (clouds, nodes, c_out).

    Args:
        builder: makes the layers.
        in_type: type of the features of points.
        nodes: how many patches; of smaller clouds, as many as there are points.
        width: factor on the number of channels.
        attributes: features of points that implicit kernels look at.

    Attributes:
        out_type: type of the features that come out.
    """

    def __init__(self, builder: PointBuilder, in_type: FieldType, nodes: int, width: float, attributes: int) -> None:
        super().__init__()
        self.nodes, self.attributes = nodes, attributes
        self.out_type = builder.irreps(_CHANNELS * width)
        before, self.activate = builder.gate(self.out_type)
        self.filters = builder.filters(_REACH, _SHELLS, _FREQUENCY, attributes)
        self.convolve = builder.convolve(in_type, before, self.filters)

    def forward(
        self,
        positions: Float[Tensor, "clouds points 3"],
        present: Bool[Tensor, "clouds points"],
        features: Float[Tensor, "clouds points c_in"],
    ) -> tuple[Int[Tensor, "clouds nodes"], Bool[Tensor, "clouds nodes"], Float[Tensor, "clouds nodes c_out"]]:
        """Return the nodes by number, which of them are there, and the features of their patches, 0 where none is.

        Args:
            positions: of the points, about the centroid, in units of the spread.
            present: which points are there; in each cloud those come first.
            features: of the points.
        """
        clouds, points = present.shape
        sizes, count = present.sum(1), min(self.nodes, points)
        first = positions.square().sum(-1).masked_fill(~present, -1.0).argmax(1)
        nodes = farthest_of_clouds(positions.detach(), present, first, count)
        centres = positions.gather(1, nodes[..., None].expand(-1, -1, 3))
        held = (sizes / _SHARE).ceil().long().clamp_min(_LEAST).minimum(sizes)  # points in a patch, cloud by cloud
        number = min(max(-(-points // _SHARE), _LEAST), points)
        squares = (centres[:, :, None] - positions[:, None]).square().sum(-1).masked_fill(~present[:, None], torch.inf)
        near = squares.topk(number, largest=False)
        reach = near.values.gather(2, (held - 1)[:, None, None].expand(-1, count, -1)).clamp_min(1e-12)
        weights = (1 - near.values / reach).clamp_min(0.0)
        weights = number * weights / weights.sum(2, keepdim=True)
        sources = (near.indices + points * torch.arange(clouds, device=nodes.device)[:, None, None]).flatten()
        targets = torch.arange(clouds * count, device=nodes.device).repeat_interleave(number)
        vectors = positions.flatten(0, 1)[sources] - centres.flatten(0, 1)[targets]
        rows = features.flatten(0, 1)
        filters = self.filters(vectors, rows[sources, 1:] if self.attributes else None) * weights.flatten()[:, None]
        edges = torch.stack([sources, targets])
        found = self.activate(self.convolve(rows, edges, filters, nodes=clouds * count, neighbours=number))
        there = torch.arange(count, device=nodes.device) < sizes[:, None]
        return nodes, there, found.view(clouds, count, -1) * there[..., None]
