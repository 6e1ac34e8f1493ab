"""Neighbours in batches of clouds, and far-apart points, without compiled extensions.

On the CPU a k-d tree finds neighbours, on other devices all distances of a cloud are compared; pyg-lib does either
where it is installed. Edges are those of PyG: `edges[0]` holds the neighbours, `edges[1]` the centres they surround, in
ascending order, the nearest neighbour of a centre first. No edge joins two clouds.

One tree serves all clouds of a batch: the number of its cloud, times far more than the batch is wide, is a point's
fourth coordinate, so that points of other clouds are further away than any of its own.
"""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

__all__ = ["farthest_of_clouds", "farthest_points", "knn", "radius"]

# Distances held at a time where all are compared.
_MAX_DISTANCES = 2**25
# Neighbours looked for where any number is asked for; twice as many if some centre has so many.
_FIRST_GUESS = 64


def knn(
    positions: Float[Tensor, "n 3"],
    index: Int[Tensor, " n"],
    k: int,
    *,
    centres: Float[Tensor, "m 3"] | None = None,
    centre_index: Int[Tensor, " m"] | None = None,
) -> Int[Tensor, "2 e"]:
    """The k nearest neighbours of each centre.

    Args:
        positions: of the points.
        index: cloud of each point, ascending from 0.
        k: neighbours of a centre. In a cloud of fewer points, all of them; with more points, exactly k edges per
            centre follow one another.
        centres: positions of the centres; None where every point is a centre, which then is not its own neighbour.
        centre_index: cloud of each centre, ascending.

    Raises:
        ValueError: k below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    edges = _nearest(positions, index, k + (centres is None), centres, centre_index)
    return edges if centres is not None else _without_self(edges, k)


def radius(
    positions: Float[Tensor, "n 3"],
    index: Int[Tensor, " n"],
    r: float,
    *,
    max_neighbours: int | None = None,
    centres: Float[Tensor, "m 3"] | None = None,
    centre_index: Int[Tensor, " m"] | None = None,
) -> Int[Tensor, "2 e"]:
    """All neighbours of each centre within the radius r.

    Args:
        positions, index, centres, centre_index: as for `knn`.
        r: in the units of the positions.
        max_neighbours: no more than this many, the nearest, of a centre; None for all.

    Raises:
        ValueError: r not positive, or max_neighbours below 1.
    """
    if not r > 0 or (max_neighbours is not None and max_neighbours < 1):
        raise ValueError(f"r must be positive and max_neighbours at least 1, not {r} and {max_neighbours}")
    most = int(torch.bincount(index).max()) if len(index) else 1
    k = min(most, _FIRST_GUESS if max_neighbours is None else max_neighbours + (centres is None))
    edges = _nearest(positions, index, k, centres, centre_index, r)
    while max_neighbours is None and k < most and k in torch.bincount(edges[1]):
        k = min(most, 2 * k)
        edges = _nearest(positions, index, k, centres, centre_index, r)
    return edges if centres is not None else _without_self(edges, max_neighbours or most)


def farthest_points(
    positions: Float[Tensor, "n 3"],
    index: Int[Tensor, " n"],
    ratio: float,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " m"]:
    """Farthest-point sampling: from each cloud ⌈ratio · n⌉ points, each as far as can be from those before it.

    Args:
        positions: of the points.
        index: cloud of each point, ascending from 0, no cloud empty.
        ratio: share of each cloud's points, above 0 and up to 1.
        generator: draws the first point of each cloud, on the CPU; None to begin with the first in order.

    Returns:
        Points by number, cloud by cloud, in the order they were found.

    Raises:
        ValueError: ratio out of range.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, not {ratio}")
    if generator is None and _pyg_lib("fps"):
        from torch_geometric.nn import fps

        found: Tensor = fps(positions, index, ratio, random_start=False)
        return found
    dense, filled, starts = _padded(positions, index)
    sizes = filled.sum(1)
    wanted = torch.ceil(ratio * sizes.double() - 1e-9).long()
    draws = torch.zeros(len(sizes)) if generator is None else torch.rand(len(sizes), generator=generator)
    order = farthest_of_clouds(dense, filled, (draws.to(sizes.device) * sizes).long(), int(wanted.max()))
    return (order + starts[:, None])[torch.arange(order.shape[1], device=order.device) < wanted[:, None]]


def farthest_of_clouds(
    positions: Float[Tensor, "clouds points 3"],
    present: Bool[Tensor, "clouds points"],
    first: Int[Tensor, " clouds"],
    count: int,
) -> Int[Tensor, "clouds count"]:
    """Farthest-point sampling of clouds side by side.

    Args:
        positions: of the points.
        present: which of them are there.
        first: the point of each cloud to begin with.
        count: points wanted; those that a cloud has not are any of it.
    """
    newest = first
    clouds = torch.arange(positions.shape[0], device=positions.device)
    # Squared distance of every point to the nearest one taken; padding is never the farthest.
    gaps = torch.where(present, torch.inf, -torch.inf)
    taken = [newest]
    for _ in range(1, count):
        step = (positions - positions[clouds, newest, None]).square().sum(-1)
        gaps = torch.minimum(gaps, step)
        gaps[clouds, newest] = -1.0  # Not again, even where points coincide.
        newest = torch.where(present, gaps, -torch.inf).argmax(1)
        taken.append(newest)
    return torch.stack(taken, 1)


def _pyg_lib(name: str) -> bool:
    """Whether pyg-lib is installed and can do this."""
    if importlib.util.find_spec("pyg_lib") is None:
        return False
    import torch_geometric.typing

    return bool(getattr(torch_geometric.typing, f"WITH_{name.upper()}", False))


def _without_self(edges: Tensor, k: int) -> Tensor:
    """Edges but those from a point to itself, and no more than k for a centre; neighbours come nearest first."""
    edges = edges[:, edges[0] != edges[1]]
    # Where points coincide, a point may be missing among its own neighbours, which then are one too many.
    counts = torch.bincount(edges[1])
    rank = torch.arange(edges.shape[1], device=edges.device) - (counts.cumsum(0) - counts)[edges[1]]
    return edges[:, rank < k]


def _nearest(
    positions: Tensor, index: Tensor, k: int, centres: Tensor | None, centre_index: Tensor | None, r: float = math.inf
) -> Tensor:
    """The k nearest points within r of each centre, the centre itself among them."""
    if centres is None or centre_index is None:
        if centres is not centre_index:
            raise ValueError("centres and centre_index come together")
        centres, centre_index = positions, index
    positions, centres = positions.detach(), centres.detach()
    if r == math.inf and _pyg_lib("knn"):
        from torch_geometric.nn import knn as pyg_knn

        found: Tensor = pyg_knn(positions, centres, k, index, centre_index).flip(0)
        return found
    if positions.device.type == "cpu":
        return _by_tree(positions, index, k, centres, centre_index, r)
    return _by_comparison(positions, index, k, centres, centre_index, r)


def _by_tree(positions: Tensor, index: Tensor, k: int, centres: Tensor, centre_index: Tensor, r: float) -> Tensor:
    """`_nearest` on the CPU."""
    points, queries = positions.double().numpy(), centres.double().numpy()
    both = np.concatenate([points, queries])
    width = 2 * float(np.linalg.norm(np.ptp(both, axis=0))) + 1 if len(both) else 1.0

    def apart(values: NDArray[np.float64], cloud: Tensor) -> NDArray[np.float64]:
        return np.column_stack([values, 2 * width * cloud.numpy()])

    # A bound below the width, and above r however it is rounded: what lies beyond r is dropped below.
    bound = width if r == math.inf else min(width, float(np.nextafter(r, np.inf)))
    tree = cKDTree(apart(points, index))
    distances, found = tree.query(apart(queries, centre_index), k=np.arange(1, k + 1), distance_upper_bound=bound)
    centre, _ = np.nonzero(np.isfinite(distances) & (distances <= r))
    neighbour = found[np.isfinite(distances) & (distances <= r)]
    return torch.from_numpy(np.stack([neighbour, centre]).astype(np.int64))


def _by_comparison(positions: Tensor, index: Tensor, k: int, centres: Tensor, centre_index: Tensor, r: float) -> Tensor:
    """`_nearest` on any device, by all distances within each cloud."""
    dense, filled, starts = _padded(positions, index)
    columns = torch.arange(dense.shape[1], device=positions.device)
    step = max(1, _MAX_DISTANCES // max(1, dense.shape[1]))
    parts = [torch.empty((2, 0), dtype=torch.long, device=positions.device)]
    for first in range(0, len(centres), step):
        cloud = centre_index[first : first + step]
        distances = (dense[cloud] - centres[first : first + step, None]).square().sum(-1).sqrt()
        distances = torch.where(filled[cloud], distances, torch.inf)
        nearest, chosen = distances.topk(min(k, len(columns)), dim=1, largest=False, sorted=True)
        row, rank = torch.nonzero(torch.isfinite(nearest) & (nearest <= r), as_tuple=True)
        parts.append(torch.stack([chosen[row, rank] + starts[cloud[row]], row + first]))
    return torch.cat(parts, 1)


def _padded(positions: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Clouds side by side [B, n, 3], where they are filled [B, n], and the number of the first point of each [B]."""
    sizes = torch.bincount(index)
    starts = sizes.cumsum(0) - sizes
    widest = int(sizes.max()) if len(sizes) else 0
    filled = torch.arange(widest, device=index.device) < sizes[:, None]
    dense = positions.new_zeros(len(sizes), widest, positions.shape[1])
    dense[filled] = positions.detach()
    return dense, filled, starts
