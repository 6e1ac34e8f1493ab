"""Persistent local homology: what the surroundings of a point look like to topology, as features of the point.

The link of a point x in a shell, L = {y : r ≤ |y − x| ≤ R}, tells the local homology of what the cloud was drawn from:
H̃ₖ₋₁(L) ≅ Hₖ(X, X ∖ x). On a curve the link is two points, at its end one, where three branches meet three; on a surface
it is a circle, on its edge an arc. With R = ∞, L is what is left of the cloud without a ball: whether that falls apart
is no local matter. Of L only samples are known, so that its homology is that of the Vietoris–Rips complexes of all
scales: a component dies, and a loop is born and dies, when an edge of some length appears. These lengths are the
features. Each is the distance of two known points, so that they have derivatives by the positions, and no rotation,
reflection or shift changes them: they need no equivariance. (After the persistent local homology of Fasy and Wang 2016,
and 2311.10156, which puts it on the nodes of networks.)
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from parteq.datasets.errors import DataError
from parteq.datasets.points.base import PointClouds
from parteq.datasets.points.neighbours import farthest_points

__all__ = ["LocalPersistence", "import_gudhi", "persistence_features", "rips_edges"]


def import_gudhi() -> Any:
    """The package gudhi.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module("gudhi")
    except ImportError as error:
        raise DataError("gudhi", "is not installed: pip install 'parteq[topology]'") from error


def rips_edges(distances: NDArray[np.floating], loops: bool = True) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The edges at which components and loops of Vietoris–Rips complexes are born and die.

    Args:
        distances: of m points, [m, m].
        loops: False to look for components alone, which takes much less time.

    Returns:
        Edges at which components die, [m − 1, 2]; edges at which loops are born and die, [loops, 4]. Classes that die
        at once are left out.

    Raises:
        DataError: gudhi is not installed.
    """
    complexes = import_gudhi().RipsComplex(distance_matrix=distances)
    tree = complexes.create_simplex_tree(max_dimension=2 if loops else 1)
    tree.compute_persistence(homology_coeff_field=2)
    components, others, _, _ = tree.flag_persistence_generators()
    dead = np.asarray(components)[:, 1:]
    lived = others[0] if loops and others else np.empty((0, 4))
    return dead.reshape(-1, 2).astype(np.int64), np.asarray(lived).reshape(-1, 4).astype(np.int64)


class LocalPersistence(nn.Module):
    """Features of points from the homology of their links, differentiable by the positions.

    For each shell: the lengths at which the last components die, and the births and deaths of the loops that live
    longest; zero where there are fewer.

    Args:
        shells: inner and outer radius (r, R) of each, in the units of the positions; R may be infinite.
        components: how many deaths of components a shell gives.
        loops: how many loops a shell gives; 0 saves most of the time.
        landmarks: a link of more points is thinned to this many, far apart from each other, beginning with the one
            nearest to the centre.
    """

    def __init__(
        self, shells: Sequence[tuple[float, float]], *, components: int = 3, loops: int = 2, landmarks: int = 48
    ) -> None:
        super().__init__()
        self.shells = tuple(shells)
        self.components, self.loops, self.landmarks = components, loops, landmarks

    @property
    def width(self) -> int:
        """How many features a point gets."""
        return len(self.shells) * (self.components + 2 * self.loops)

    def forward(
        self,
        positions: Float[Tensor, "n 3"],
        index: Int[Tensor, " n"],
        centres: Int[Tensor, " m"],
    ) -> Float[Tensor, "m features"]:
        """Features of the points that are centres.

        Args:
            positions: of the points.
            index: cloud of each point, ascending from 0.
            centres: numbers of the points that get features.

        Raises:
            DataError: gudhi is not installed.
        """
        bounds = torch.searchsorted(index, torch.arange(int(index.max()) + 2, device=index.device)).tolist()
        rows = []
        for centre in centres.tolist():
            cloud = int(index[centre])
            points = positions[bounds[cloud] : bounds[cloud + 1]]
            distances = (points.detach() - positions[centre].detach()).norm(dim=1)
            shells = [points[(distances >= r) & (distances <= outer)] for r, outer in self.shells]
            rows.append(torch.cat([self._features(self._thin(link, positions[centre])) for link in shells]))
        return torch.stack(rows) if rows else positions.new_zeros(0, self.width)

    def _thin(self, link: Tensor, centre: Tensor) -> Tensor:
        """At most so many points as there are to be landmarks."""
        if len(link) <= self.landmarks:
            return link
        ordered = link[(link.detach() - centre.detach()).norm(dim=1).argsort(stable=True)]
        same = torch.zeros(len(link), dtype=torch.long, device=link.device)
        return ordered[farthest_points(ordered, same, self.landmarks / len(link))[: self.landmarks]]

    def _features(self, link: Tensor) -> Tensor:
        """Of one link, [components + 2 · loops]."""
        if len(link) < 2:
            return link.new_zeros(self.components + 2 * self.loops)
        known = link.detach().double().cpu()
        dead, lived = (torch.from_numpy(e) for e in rips_edges(torch.cdist(known, known).numpy(), self.loops > 0))

        def lengths(edges: Tensor) -> Tensor:
            return (link[edges[:, 0]] - link[edges[:, 1]]).norm(dim=1)

        deaths = lengths(dead).sort(descending=True).values
        births_and_deaths = torch.stack([lengths(lived[:, :2]), lengths(lived[:, 2:])], 1)
        longest = (births_and_deaths[:, 1] - births_and_deaths[:, 0]).argsort(descending=True, stable=True)
        return torch.cat(
            [_filled(deaths, self.components), _filled(births_and_deaths[longest].flatten(), 2 * self.loops)]
        )


def _filled(values: Tensor, count: int) -> Tensor:
    """The first so many values, zeros behind them if they are fewer."""
    return nn.functional.pad(values[:count], (0, max(0, count - len(values))))


def persistence_features(
    clouds: PointClouds, features: LocalPersistence, ratio: float
) -> tuple[Float[Tensor, "m features"], Int[Tensor, " m"]]:
    """Features of far-apart points of every cloud, found once and for all.

    Args:
        clouds: N of them.
        features: what to compute.
        ratio: share of each cloud's points that get features, see `farthest_points`.

    Returns:
        Features, and the cloud of each, ascending from 0 to N − 1.
    """
    rows, owners = [], []
    for number in tqdm(range(len(clouds)), "local homology", delay=2, disable=None, leave=False):
        batch = clouds.batch([number])
        centres = farthest_points(batch.positions, batch.index, ratio)
        rows.append(features(batch.positions, batch.index, centres))
        owners.append(torch.full((len(centres),), number))
    return torch.cat(rows), torch.cat(owners)
