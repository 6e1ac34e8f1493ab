"""The sheaf of local homology on a simplicial complex, and messages along it.

To a simplex σ of a complex X the sheaf gives F(σ) = Hₖ(X, X ∖ st σ), the homology of chains on the simplices around σ
(those that contain it, its star) alone; for a vertex that is the reduced homology, one degree lower, of its link. For a
vertex v of an edge e the star of e lies in that of v, and forgetting all chains outside it is the map F(v) → F(e).
Signals are vectors x_v in F(v); the coboundary (δx)ₑ = F(w→e) x_w − F(v→e) x_v of an edge from v to w tells how they
disagree, and L = δᵀδ makes neighbours agree. What L leaves alone are the global sections: on a closed surface and
k = 2 they have dimension 1 if it can be oriented and 0 if it cannot, or has an edge; on a graph and k = 1 they are its
cycles. (After 2311.10156.)

Homology is represented by harmonic chains, the kernel of ∂ₖ and ∂ₖ₊₁ᵀ on the star, so that F(v) = Rᵈ with an
orthonormal basis that is arbitrary up to a rotation: a layer may mix channels and scale vectors by their lengths, but
no more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from parteq.apps.points.persistence import import_gudhi

__all__ = ["LocalHomologySheaf", "SheafConv", "local_homology_sheaf", "rips_complex"]

Simplex = tuple[int, ...]

# Singular values below this share of the largest are zero.
_TOLERANCE = 1e-8


def rips_complex(
    positions: Float[Tensor, "n 3"], index: Int[Tensor, " n"], scale: float, dimension: int
) -> list[Simplex]:
    """The Vietoris–Rips complex of each cloud of a batch: the sets of points within a distance of each other.

    Args:
        positions: of the points, the vertices.
        index: cloud of each point.
        scale: the distance.
        dimension: highest of the simplices, which have one vertex more.

    Raises:
        DataError: gudhi is not installed.
    """
    gudhi = import_gudhi()
    found: list[Simplex] = []
    for cloud in index.unique().tolist():
        members = torch.nonzero(index == cloud).flatten().tolist()
        complexes = gudhi.RipsComplex(points=positions[members].detach().cpu().numpy(), max_edge_length=scale)
        tree = complexes.create_simplex_tree(max_dimension=dimension)
        found += [tuple(members[v] for v in simplex) for simplex, _ in tree.get_simplices()]
    return found


@dataclass(frozen=True)
class LocalHomologySheaf:
    """Stalks on the vertices and edges of a complex, all padded to the same dimensions D and E.

    Attributes:
        dimensions: of the stalk of each vertex, int64 [n].
        edges: int64 [2, e], each edge in both directions, from `edges[0]` to `edges[1]`.
        from_source: the maps F(v → e) of the vertex that an edge begins at, float32 [e, E, D].
        from_target: of the vertex it ends at, float32 [e, E, D].
        strengths: the largest eigenvalue of each vertex's own block of L, float32 [n]; 1 where that is 0.
    """

    dimensions: Int[Tensor, " n"]
    edges: Int[Tensor, "2 e"]
    from_source: Float[Tensor, "e E D"]
    from_target: Float[Tensor, "e E D"]
    strengths: Float[Tensor, " n"]

    @property
    def mask(self) -> Float[Tensor, "n D"]:
        """1 in the coordinates that the stalk of a vertex has, 0 in the padding."""
        places = torch.arange(self.from_source.shape[2], device=self.dimensions.device)
        return (places < self.dimensions[:, None]).to(self.from_source)

    def laplacian(self) -> Float[Tensor, "nD nD"]:
        """L = δᵀδ as one matrix, zero in the padding. For small complexes."""
        count, width = self.mask.shape
        matrix = self.from_source.new_zeros(count, width, count, width)
        source, target = self.edges
        for v, w, at_v, at_w in zip(source, target, self.from_source, self.from_target, strict=True):
            matrix[w, :, w] += at_w.mT @ at_w
            matrix[w, :, v] -= at_w.mT @ at_v
        return matrix.reshape(count * width, count * width)

    def to(self, device: torch.device | str) -> LocalHomologySheaf:
        """The same sheaf on another device."""
        return LocalHomologySheaf(*(part.to(device) for part in vars(self).values()))


def _boundary(lower: Sequence[Simplex], upper: Sequence[Simplex]) -> NDArray[np.float64]:
    """The boundary of chains on `upper`, in chains on `lower`; other simplices of the boundary are left out."""
    row = {simplex: number for number, simplex in enumerate(lower)}
    matrix = np.zeros((len(lower), len(upper)))
    for column, simplex in enumerate(upper):
        for place in range(len(simplex)):
            face = simplex[:place] + simplex[place + 1 :]
            if face in row:
                matrix[row[face], column] = (-1) ** place
    return matrix


def _harmonic(star: Sequence[Sequence[Simplex]]) -> NDArray[np.float64]:
    """Harmonic chains on the middle one of three dimensions of a star: an orthonormal basis in columns."""
    lower, middle, upper = star
    if not middle:
        return np.zeros((0, 0))
    conditions = np.concatenate([_boundary(lower, middle), _boundary(middle, upper).T])
    if not conditions.size:
        return np.eye(len(middle))
    _, values, rows = np.linalg.svd(conditions, full_matrices=True)
    rank = int((values > _TOLERANCE * max(values.max(), 1.0)).sum())
    return rows[rank:].T


def local_homology_sheaf(simplices: Iterable[Simplex], vertices: int, degree: int) -> LocalHomologySheaf:
    """The sheaf of local homology of a complex.

    Args:
        simplices: of the complex, each by its vertices from 0 to `vertices` − 1; faces may be left out. Those of up to
            `degree` + 2 vertices count.
        vertices: how many there are.
        degree: k, of the homology, at least 1: 1 for curves, 2 for surfaces.

    Raises:
        ValueError: degree below 1.
    """
    if degree < 1:
        raise ValueError(f"the degree must be at least 1, not {degree}")
    stars: dict[Simplex, list[list[Simplex]]] = defaultdict(lambda: [[], [], []])
    edges: set[Simplex] = set()
    for simplex in sorted(_with_faces(simplices, degree + 2)):
        edges |= {simplex} if len(simplex) == 2 else set()
        layer = len(simplex) - degree
        if layer in (0, 1, 2):
            for size in (1, 2):
                for face in combinations(simplex, size):
                    stars[face][layer].append(simplex)
    bases = {face: _harmonic(star) for face, star in stars.items()}
    nothing = np.zeros((0, 0))

    def restriction(vertex: int, edge: Simplex) -> NDArray[np.float64]:
        """F(v → e) in the two bases: forget the chains that are not around e, and take what is harmonic of the rest."""
        whole, part = bases.get((vertex,), nothing), bases.get(edge, nothing)
        if not whole.size or not part.size:
            return np.zeros((part.shape[1], whole.shape[1]))
        row = {simplex: number for number, simplex in enumerate(stars[(vertex,)][1])}
        kept = [row[simplex] for simplex in stars[edge][1]]
        mapped: NDArray[np.float64] = part.T @ whole[kept]
        return mapped

    ordered = sorted(edges)
    maps = [(restriction(v, (v, w)), restriction(w, (v, w))) for v, w in ordered]
    dimensions = np.array([bases.get((v,), nothing).shape[1] for v in range(vertices)], np.int64)
    width = max(1, dimensions.max(initial=0))
    height = max([1, *(at_v.shape[0] for at_v, _ in maps)])
    tails, heads = (_padded([pair[end] for pair in maps], height, width) for end in (0, 1))
    ends = torch.tensor(ordered, dtype=torch.long).reshape(-1, 2).T
    both = torch.cat([ends, ends.flip(0)], 1)
    source, target = torch.cat([tails, heads]), torch.cat([heads, tails])
    blocks = source.new_zeros(vertices, width, width).index_add_(0, both[1], target.mT @ target)
    largest = torch.linalg.eigvalsh(blocks)[:, -1]
    strengths = torch.where(largest > _TOLERANCE, largest, 1.0)
    return LocalHomologySheaf(torch.from_numpy(dimensions), both, source.float(), target.float(), strengths.float())


def _with_faces(simplices: Iterable[Simplex], largest: int) -> set[Simplex]:
    """All faces of up to so many vertices, vertices in order."""
    return {
        face
        for simplex in simplices
        for size in range(1, min(len(simplex), largest) + 1)
        for face in combinations(sorted(simplex), size)
    }


def _padded(matrices: Sequence[NDArray[np.float64]], height: int, width: int) -> Float[Tensor, "e E D"]:
    stacked = np.zeros((len(matrices), height, width))
    for place, matrix in zip(stacked, matrices, strict=True):
        place[: matrix.shape[0], : matrix.shape[1]] = matrix
    return torch.from_numpy(stacked)


class SheafConv(MessagePassing):
    """One step of diffusion along a sheaf, with channels mixed and vectors gated by their lengths.

        x ← gate(x W₀ − L̂ x W₁),   L̂ = S^(−1/2) L S^(−1/2)

    with S the strengths of the sheaf, so that the eigenvalues of L̂ lie in 0 … 2. A channel of a vertex is a vector of
    its stalk; the gate multiplies it by a number that depends on the lengths of all channels. Any rotation of the basis
    of any stalk turns the output as it turns the input.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        gated: False for the linear part alone. Where channels do not change in number, it begins as half a step of
            diffusion, x − L̂ x / 2, which keeps global sections and damps all else.
    """

    def __init__(self, in_channels: int, out_channels: int, *, gated: bool = True) -> None:
        super().__init__(aggr="add", flow="source_to_target", node_dim=0)
        self.keep = nn.Linear(in_channels, out_channels, bias=False)
        self.spread = nn.Linear(in_channels, out_channels, bias=False)
        self.gate = nn.Linear(out_channels, out_channels) if gated else None
        if not gated and in_channels == out_channels:
            with torch.no_grad():
                self.keep.weight.copy_(torch.eye(out_channels))
                self.spread.weight.copy_(torch.eye(out_channels) / 2)

    def forward(self, x: Float[Tensor, "n D channels"], sheaf: LocalHomologySheaf) -> Float[Tensor, "n D out"]:
        """Signals on the vertices to signals on the vertices; both are zero in the padding of the stalks."""
        scale = sheaf.strengths.rsqrt()[:, None, None]
        flow = scale * self.propagate(
            sheaf.edges, x=scale * x, from_source=sheaf.from_source, from_target=sheaf.from_target
        )
        mixed: Tensor = self.keep(x) - self.spread(flow)
        if self.gate is None:
            return mixed
        # The length, smooth where the vector vanishes.
        lengths = (mixed.square().sum(1) + 1e-6).sqrt()
        return mixed * self.gate(lengths).sigmoid()[:, None]

    def message(self, x_i: Tensor, x_j: Tensor, from_source: Tensor, from_target: Tensor) -> Tensor:
        """What an edge adds to L x at its end: F(w→e)ᵀ (F(w→e) x_w − F(v→e) x_v)."""
        return from_target.mT @ (from_target @ x_i - from_source @ x_j)
