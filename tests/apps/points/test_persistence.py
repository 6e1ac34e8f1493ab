"""Persistent local homology: known links, derivatives, and what it does not depend on."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import pytest
import roma
import torch

from parteq.apps.points.persistence import LocalPersistence, import_gudhi, persistence_features, rips_edges
from parteq.datasets.errors import DataError
from parteq.datasets.points.base import ArrayClouds
from parteq.datasets.points.shapes import annuli_and_discs, linked_and_unlinked

pytest.importorskip("gudhi", reason="gudhi is not installed (the extra topology)")

INF = math.inf


def circle(count: int, radius: float = 1.0) -> torch.Tensor:
    angles = 2 * math.pi * torch.arange(count) / count
    return radius * torch.stack([angles.cos(), angles.sin(), 0 * angles], 1)


def features(layer: LocalPersistence, positions: torch.Tensor, centres: list[int]) -> torch.Tensor:
    index = torch.zeros(len(positions), dtype=torch.long)
    return layer(positions, index, torch.tensor(centres))


def test_edges_of_a_square() -> None:
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    distances = np.linalg.norm(corners[:, None] - corners, axis=-1)
    components, loops = rips_edges(distances)
    assert distances[tuple(components.T)].tolist() == [1, 1, 1]
    assert loops.shape == (1, 4)
    assert (distances[loops[0, 0], loops[0, 1]], distances[loops[0, 2], loops[0, 3]]) == (
        1,
        pytest.approx(math.sqrt(2)),
    )
    assert rips_edges(distances, loops=False)[1].shape == (0, 4)


def test_links_on_a_curve() -> None:
    """Two pieces at a point inside, one at an end, three where branches meet."""
    steps = torch.arange(1, 9)[:, None] / 10
    arms = [steps * torch.tensor(d) for d in ([1.0, 0, 0], [-0.5, 0.866, 0], [-0.5, -0.866, 0])]
    star = torch.cat([torch.zeros(1, 3), *arms])
    layer = LocalPersistence([(0.15, 0.35)], components=3, loops=0)
    # The middle, the middle of a branch, its end.
    deaths = features(layer, star, [0, 4, 8])
    pieces = 1 + (deaths > 0.2).sum(1)
    assert pieces.tolist() == [3, 2, 1]


def test_a_loop_is_born_at_the_spacing_and_dies_at_its_width() -> None:
    around = torch.cat([torch.zeros(1, 3), circle(12)])
    layer = LocalPersistence([(0.5, INF)], components=1, loops=2)
    found = features(layer, around, [0])[0]
    side = 2 * math.sin(math.pi / 12)
    # Twelve points fill up when triangles over four steps each appear.
    assert found.numpy() == pytest.approx([side, side, math.sqrt(3), 0, 0], abs=1e-5)


def test_derivatives_are_those_of_the_edges() -> None:
    positions = torch.cat([torch.zeros(1, 3), circle(9)]).double()
    positions += 0.05 * torch.randn(10, 3, generator=torch.Generator().manual_seed(0)).double()
    layer = LocalPersistence([(0.2, INF), (0.2, 1.5)], components=2, loops=1)
    index = torch.zeros(10, dtype=torch.long)
    assert torch.autograd.gradcheck(
        lambda p: layer(p, index, torch.tensor([0])), (positions.requires_grad_(),), eps=1e-6, atol=1e-5
    )


def test_rotations_reflections_shifts_and_order_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    positions = torch.randn(30, 3, generator=generator).double()
    layer = LocalPersistence([(0.3, 1.5), (0.5, INF)], landmarks=12)
    before = features(layer, positions, [3, 7])
    assert before.shape == (2, layer.width) == (2, 14)
    turned = -positions @ roma.random_rotmat(dtype=torch.float64).T + 2
    torch.testing.assert_close(features(layer, turned, [3, 7]), before)
    order = torch.randperm(30, generator=generator)
    places = [int((order == i).nonzero()) for i in (3, 7)]
    torch.testing.assert_close(features(layer, positions[order], places), before)


def test_clouds_do_not_see_each_other_and_may_be_empty_around_a_point() -> None:
    positions = torch.cat([circle(8), circle(8, radius=1.2), torch.zeros(1, 3)])
    index = torch.tensor([0] * 8 + [1] * 8 + [2])
    layer = LocalPersistence([(0.1, INF)])
    found = layer(positions, index, torch.tensor([0, 8, 16]))
    torch.testing.assert_close(1.2 * found[0], found[1])
    assert (found[2] == 0).all()
    assert layer(positions, index, torch.tensor([], dtype=torch.long)).shape == (0, layer.width)
    alone = persistence_features(ArrayClouds(positions, [8, 8, 1]), layer, 0.25)
    torch.testing.assert_close(alone[0][[0, 2, 4]], found)
    assert alone[1].tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("make", "layer", "statistic"),
    [
        # Without a ball about a point, a disc with a slit falls apart, and an annulus does not.
        (
            annuli_and_discs,
            LocalPersistence([(0.6, INF)], components=1, loops=0, landmarks=256),
            lambda f: -f.mean(1)[:, 0],
        ),
        # The loop of a ring fills early where the other ring passes through it.
        (linked_and_unlinked, LocalPersistence([(0.3, INF)], components=0, loops=1), lambda f: -f.mean(1)[:, 1]),
    ],
)
def test_topology_tells_shapes_apart(make: Any, layer: LocalPersistence, statistic: Any) -> None:
    """By one number, without any training: a threshold between the classes errs in a sixth of the clouds at most."""
    clouds = make(24, seed=0)
    found, _ = persistence_features(clouds, layer, 4 / clouds.sizes[0])
    values = statistic(found.reshape(24, 4, -1)).numpy()
    best = max(((values > t) == (clouds.labels == 1)).mean() for t in values)
    assert best >= 5 / 6


def test_without_gudhi(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "gudhi":
            raise ImportError
        return real(name, *arguments, **options)

    monkeypatch.setattr("importlib.import_module", lambda name: missing(name))
    with pytest.raises(DataError, match=r"pip install 'parteq\[topology\]'"):
        import_gudhi()
