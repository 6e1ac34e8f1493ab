"""A classifier of clouds that sees nothing but topology: persistent local homology, spread along a sheaf.

Its nodes are points of a cloud far apart from each other. Each has features (`LocalPersistence`), which no motion
changes; a sheaf of local homology lies on the complex of the nodes. Its stalks have no basis of their own, so a signal
begins as random vectors in them, a channel each, scaled by what the features say; what diffusion leaves of their
lengths tells where global sections are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.utils import scatter

from parteq.apps.points.persistence import LocalPersistence
from parteq.apps.points.sheaf import LocalHomologySheaf, SheafConv, local_homology_sheaf, rips_complex
from parteq.datasets.points.base import CloudBatch
from parteq.datasets.points.neighbours import farthest_points

__all__ = ["TopologyData", "TopologyNetwork", "join", "topology_data"]


@dataclass(frozen=True)
class TopologyData:
    """What the network sees of a batch of clouds.

    Attributes:
        features: of the nodes, float32 [m, F].
        index: cloud of each node, int64 [m].
        sheaf: on the nodes.
    """

    features: Float[Tensor, "m F"]
    index: Int[Tensor, " m"]
    sheaf: LocalHomologySheaf


def topology_data(
    batch: CloudBatch, persistence: LocalPersistence, *, ratio: float, scale: float, degree: int = 1
) -> TopologyData:
    """Nodes, their features, and the sheaf of one or more clouds.

    Args:
        batch: the clouds.
        persistence: the features.
        ratio: share of each cloud's points that are nodes.
        scale: nodes closer to each other than this are joined.
        degree: of the local homology.

    Raises:
        DataError: gudhi is not installed.
    """
    nodes = farthest_points(batch.positions, batch.index, ratio)
    simplices = rips_complex(batch.positions[nodes], batch.index[nodes], scale, degree + 1)
    sheaf = local_homology_sheaf(simplices, len(nodes), degree)
    return TopologyData(persistence(batch.positions, batch.index, nodes), batch.index[nodes], sheaf)


def join(parts: Sequence[TopologyData]) -> TopologyData:
    """Several batches as one, their clouds numbered on."""
    width = max(part.sheaf.from_source.shape[2] for part in parts)
    height = max(part.sheaf.from_source.shape[1] for part in parts)
    edges, index, nodes, clouds = [], [], 0, 0
    for part in parts:
        edges.append(part.sheaf.edges + nodes)
        index.append(part.index + clouds)
        nodes += len(part.index)
        clouds += int(part.index.max()) + 1

    def padded(maps: Tensor) -> Tensor:
        return nn.functional.pad(maps, (0, width - maps.shape[2], 0, height - maps.shape[1]))

    sheaf = LocalHomologySheaf(
        torch.cat([part.sheaf.dimensions for part in parts]),
        torch.cat(edges, 1),
        torch.cat([padded(part.sheaf.from_source) for part in parts]),
        torch.cat([padded(part.sheaf.from_target) for part in parts]),
        torch.cat([part.sheaf.strengths for part in parts]),
    )
    return TopologyData(torch.cat([part.features for part in parts]), torch.cat(index), sheaf)


class TopologyNetwork(nn.Module):
    """Classifies clouds by their topology.

    Args:
        features: of a node.
        classes: how many.
        channels: of the signal on the sheaf, and of hidden layers.
        layers: of message passing along the sheaf; 0 for the features alone.
    """

    def __init__(self, features: int, classes: int, *, channels: int = 32, layers: int = 4) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.encode = nn.Sequential(nn.Linear(features, channels), nn.ReLU(), nn.Linear(channels, channels))
        self.convs = nn.ModuleList(SheafConv(channels, channels) for _ in range(layers))
        width = channels * (2 if layers else 1)
        self.classify = nn.Sequential(
            nn.Linear(2 * width, channels), nn.ReLU(), nn.Dropout(0.2), nn.Linear(channels, classes)
        )

    def forward(self, data: TopologyData) -> Float[Tensor, "b classes"]:
        """Logits. Random vectors are drawn anew in training, and always the same ones in evaluation."""
        nodes = self.encode(self.norm(data.features))
        if len(self.convs):
            sheaf = data.sheaf
            generator = None if self.training else torch.Generator().manual_seed(0)
            signal = torch.randn(*sheaf.mask.shape, nodes.shape[1], generator=generator).to(nodes)
            signal = signal * sheaf.mask[..., None] * nodes[:, None]
            for conv in self.convs:
                signal = conv(signal, sheaf)
            nodes = torch.cat([nodes, (signal.square().sum(1) + 1e-6).sqrt()], 1)
        pooled = [scatter(nodes, data.index, reduce=how) for how in ("mean", "max")]
        logits: Tensor = self.classify(torch.cat(pooled, 1))
        return logits
