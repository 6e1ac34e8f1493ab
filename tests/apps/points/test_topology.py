"""The classifier by topology: batches, determinism, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from parteq.apps.points.persistence import LocalPersistence
from parteq.apps.points.topology import TopologyNetwork, join, topology_data
from parteq.datasets.points.base import ArrayClouds

pytest.importorskip("gudhi", reason="gudhi is not installed (the extra topology)")

PERSISTENCE = LocalPersistence([(0.5, math.inf)], components=2, loops=0)


def circles(count: int, seed: int = 0) -> ArrayClouds:
    """Circles of 16 points, closed, or cut by one point."""
    generator = np.random.default_rng(seed)
    sizes = [15 + number % 2 for number in range(count)]
    turns = [generator.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(size) / 16 for size in sizes]
    points = np.concatenate([np.column_stack([np.cos(a), np.sin(a), 0 * a]) for a in turns])
    return ArrayClouds(points + 0.01 * generator.standard_normal(points.shape), sizes, labels=np.arange(count) % 2)


def test_joined_data_equal_those_of_a_batch() -> None:
    clouds = circles(5)
    whole = topology_data(clouds.batch(range(5)), PERSISTENCE, ratio=1.0, scale=0.5)
    parts = join(
        [topology_data(clouds.batch(part), PERSISTENCE, ratio=1.0, scale=0.5) for part in ([0, 1], [2], [3, 4])]
    )
    torch.testing.assert_close(parts.features, whole.features)
    assert torch.equal(parts.index, whole.index)
    torch.testing.assert_close(parts.sheaf.laplacian(), whole.sheaf.laplacian())
    network = TopologyNetwork(PERSISTENCE.width, 2).eval()
    torch.testing.assert_close(network(parts), network(whole))


@pytest.mark.parametrize("layers", [0, 3])
def test_it_learns_what_is_closed(layers: int) -> None:
    torch.manual_seed(0)
    clouds = circles(40)
    data = topology_data(clouds.batch(range(20)), PERSISTENCE, ratio=1.0, scale=0.5)
    others = topology_data(clouds.batch(range(20, 40)), PERSISTENCE, ratio=1.0, scale=0.5)
    labels = torch.arange(20) % 2
    network = TopologyNetwork(PERSISTENCE.width, 2, channels=16, layers=layers)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(data), labels).backward()
        optimizer.step()
    network.eval()
    assert (network(others).argmax(1) == labels).float().mean() >= 0.95
    assert torch.equal(network(others), network(others))
