"""Edges of every cloud of a set, found once and for all: no rotation or shift changes who is near to whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from parteq.datasets.points.base import PointClouds

__all__ = ["Graphs", "find_graphs"]

_CLOUDS = 64


class Graphs:
    """The edges of N clouds.

    Args:
        edges: int32 [2, sum e], points numbered within their cloud, the clouds one behind the other.
        counts: edges of each cloud, int64 [N].
        sizes: points of each cloud, int64 [N].
    """

    def __init__(self, edges: Int[Tensor, "2 e"], counts: Int[Tensor, " n"], sizes: Int[Tensor, " n"]) -> None:
        self._edges, self._counts, self._sizes = edges, counts, sizes
        self._starts = counts.cumsum(0) - counts

    def __len__(self) -> int:
        return len(self._counts)

    def batch(self, indices: Sequence[int] | Tensor) -> Int[Tensor, "2 e"]:
        """The edges of these clouds in a batch of them, as `PointClouds.batch` puts it together: int64 [2, sum e]."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        counts, sizes = self._counts[chosen], self._sizes[chosen]
        before = torch.repeat_interleave(self._starts[chosen] - (counts.cumsum(0) - counts), counts)
        offsets = torch.repeat_interleave(sizes.cumsum(0) - sizes, counts)
        return self._edges[:, before + torch.arange(len(before))].long() + offsets


def find_graphs(clouds: PointClouds, find: Callable[[Tensor, Tensor], Tensor]) -> Graphs:
    """The edges of all clouds of a set, in its order.

    Args:
        clouds: the set.
        find: edges [2, e] of positions [n, 3] and index [n], such as `lambda p, i: knn(p, i, 16)`; centres ascending.
    """
    parts, counts = [], []
    for start in tqdm(range(0, len(clouds), _CLOUDS), "finding neighbours", delay=2, disable=None, leave=False):
        batch = clouds.batch(range(start, min(start + _CLOUDS, len(clouds))))
        edges = find(batch.positions, batch.index)
        cloud = batch.index[edges[1]]
        sizes = torch.bincount(batch.index)
        parts.append((edges - (sizes.cumsum(0) - sizes)[cloud]).int())
        counts.append(torch.bincount(cloud, minlength=len(sizes)))
    return Graphs(torch.cat(parts, 1), torch.cat(counts), torch.from_numpy(clouds.sizes.copy()))
