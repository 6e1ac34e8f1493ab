"""The sheaf of local homology: known complexes, its global sections, and messages along it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from parteq.apps.points.sheaf import LocalHomologySheaf, SheafConv, Simplex, local_homology_sheaf, rips_complex

SPHERE = [tuple(face) for face in combinations(range(4), 3)]
# The complexes of the torus (Möbius, Császár) and of the projective plane with fewest vertices.
TORUS = [tuple((i + shift) % 7 for shift in step) for i in range(7) for step in ((0, 1, 3), (0, 2, 3))]
PROJECTIVE = [
    (0, 1, 2),
    (0, 2, 3),
    (0, 3, 4),
    (0, 4, 5),
    (0, 5, 1),
    (1, 2, 4),
    (2, 3, 5),
    (3, 4, 1),
    (4, 5, 2),
    (5, 1, 3),
]
DISC = [(0, i, i % 6 + 1) for i in range(1, 7)]
RING = [(i, (i + 1) % 8) for i in range(8)]
THETA = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)]


def sections(sheaf: LocalHomologySheaf) -> int:
    """Dimension of the kernel of L, the padding left out."""
    inside = sheaf.mask.flatten() > 0
    if not inside.any():
        return 0
    values = torch.linalg.eigvalsh(sheaf.laplacian()[inside][:, inside].double())
    assert values.min() > -1e-5
    return int((values < 1e-5).sum())


@pytest.mark.parametrize(
    ("simplices", "vertices", "degree", "dimensions", "global_sections"),
    [
        (SPHERE, 4, 2, [1] * 4, 1),
        (TORUS, 7, 2, [1] * 7, 1),
        (PROJECTIVE, 6, 2, [1] * 6, 0),
        # A disc has stalks inside and none on its edge, where the link is an arc.
        (DISC, 7, 2, [1] + [0] * 6, 0),
        # On a graph: one less than the branches at a vertex; sections are the cycles.
        (RING, 8, 1, [1] * 8, 1),
        (RING[:-1], 8, 1, [0, 1, 1, 1, 1, 1, 1, 0], 0),
        (THETA, 5, 1, [2, 1, 1, 1, 2], 2),
        # Links that are connected have no homology in degree 0, but two spheres that touch have at their common point.
        (SPHERE, 4, 1, [0] * 4, 0),
        (SPHERE + [tuple(v + 3 for v in face) for face in SPHERE], 7, 2, [1, 1, 1, 2, 1, 1, 1], 2),
        # Filled, a tetrahedron has no homology of this degree anywhere: all links are discs.
        ([(0, 1, 2, 3)], 4, 2, [0] * 4, 0),
        # Two triangles at one edge, three at one edge.
        ([(0, 1, 2), (0, 1, 3)], 4, 2, [0] * 4, 0),
        ([], 3, 2, [0] * 3, 0),
    ],
)
def test_known_complexes(
    simplices: list[Simplex], vertices: int, degree: int, dimensions: list[int], global_sections: int
) -> None:
    sheaf = local_homology_sheaf(simplices, vertices, degree)
    assert sheaf.dimensions.tolist() == dimensions
    assert sections(sheaf) == global_sections


def test_maps_forget_chains_around_the_vertex() -> None:
    """On a closed surface a chain around a vertex has equal weights; two of its n triangles lie around an edge."""
    sheaf = local_homology_sheaf(SPHERE, 4, 2)
    assert sheaf.edges.shape == (2, 12)
    assert sheaf.from_source.abs().flatten().numpy() == pytest.approx(np.sqrt(2 / 3))
    assert sheaf.strengths.numpy() == pytest.approx(2.0)
    # F(w → e) is the same seen from either end.
    assert torch.equal(sheaf.from_source[:6], sheaf.from_target[6:])


def test_circles_of_points() -> None:
    pytest.importorskip("gudhi", reason="gudhi is not installed (the extra topology)")
    generator = np.random.default_rng(0)
    angles = 2 * np.pi * (np.arange(20) + 0.2 * generator.random(20)) / 20
    circle = np.column_stack([np.cos(angles), np.sin(angles), 0 * angles])
    positions = torch.from_numpy(np.concatenate([circle, circle[:-1]])).float()
    index = torch.tensor([0] * 20 + [1] * 19)
    simplices = rips_complex(positions, index, scale=0.45, dimension=2)
    assert all(index[list(simplex)].unique().numel() == 1 for simplex in simplices)
    # One cycle: the circle. The other lacks a point, and is cut.
    sheaf = local_homology_sheaf(simplices, 39, degree=1)
    assert sheaf.dimensions.tolist() == [1] * 20 + [0] + [1] * 17 + [0]
    assert sections(sheaf) == 1


def signal(sheaf: LocalHomologySheaf, channels: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*sheaf.mask.shape, channels, generator=generator) * sheaf.mask[..., None]


@pytest.mark.parametrize(("simplices", "vertices", "degree"), [(TORUS, 7, 2), (THETA, 5, 1), (PROJECTIVE, 6, 2)])
def test_the_layer_applies_the_laplacian(simplices: list[Simplex], vertices: int, degree: int) -> None:
    sheaf = local_homology_sheaf(simplices, vertices, degree)
    conv, x = SheafConv(3, 3, gated=False), signal(sheaf, 3)
    scale = sheaf.strengths.rsqrt().repeat_interleave(sheaf.mask.shape[1])
    normalised = scale[:, None] * sheaf.laplacian() * scale
    values = torch.linalg.eigvalsh(normalised)
    assert values.min() > -1e-5
    assert values.max() < 2 + 1e-5
    wanted = x - (normalised @ x.flatten(0, 1)).reshape(x.shape) / 2
    torch.testing.assert_close(conv(x, sheaf), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("simplices", "survives"), [(RING, True), (RING[:-1], False), (TORUS, True), (PROJECTIVE, False)]
)
def test_diffusion_keeps_global_sections_alone(simplices: list[Simplex], survives: bool) -> None:
    degree = len(simplices[0]) - 1
    sheaf = local_homology_sheaf(simplices, 8, degree)
    conv, x = SheafConv(4, 4, gated=False), signal(sheaf, 4)
    with torch.no_grad():
        for _ in range(400):
            x = conv(x, sheaf)
    assert (x.norm().item() > 0.1) == survives


def test_the_layer_does_not_depend_on_the_bases_of_stalks() -> None:
    """Turned by any orthogonal map of each stalk, the output turns likewise."""
    sheaf = local_homology_sheaf([*THETA, (0, 5), (4, 5)], 6, 1)
    assert sheaf.dimensions.tolist() == [3, 1, 1, 1, 3, 1]
    turns = torch.stack([torch.eye(3)] * 6)
    for vertex in (0, 4):
        turns[vertex] = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(vertex))).Q
    turns[1, 0, 0] = -1
    source, target = sheaf.edges
    other = replace(
        sheaf,
        from_source=sheaf.from_source @ turns[source].mT,
        from_target=sheaf.from_target @ turns[target].mT,
    )
    torch.manual_seed(0)
    conv, x = SheafConv(3, 5), signal(sheaf, 3)
    torch.testing.assert_close(conv(turns @ x, other), turns @ conv(x, sheaf), atol=1e-5, rtol=1e-5)


def test_gradients_and_padding() -> None:
    sheaf = local_homology_sheaf(THETA, 6, 1)
    conv, x = SheafConv(2, 3), signal(sheaf, 2).requires_grad_()
    out = conv(x, sheaf)
    assert (out[sheaf.mask == 0] == 0).all()
    out.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in conv.parameters())


def test_refused() -> None:
    with pytest.raises(ValueError, match="degree must be at least 1"):
        local_homology_sheaf(RING, 8, 0)
