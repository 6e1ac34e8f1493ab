from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from parteq.core.pool import AntiAliasedPool

EDGES = range(1, 10)
VOLUMES = [*((edge,) * 3 for edge in EDGES), (1, 2, 3), (4, 5, 6), (9, 8, 7), (2, 9, 1), (6, 6, 3), (5, 5, 8)]


def _integers(*shape: int) -> Tensor:
    """Return integers: the filters are fractions of powers of two, so that sums of these are exact in any order."""
    return torch.randint(-99, 100, shape, generator=torch.Generator().manual_seed(0)).double()


def _assert_exactly_equivariant(pool: AntiAliasedPool, images: Tensor) -> None:
    pooled = pool(images)
    assert pooled.shape == (*images.shape[:2], *((edge + 1) // 2 for edge in images.shape[2:]))
    axes = range(2, images.dim())
    for first, second in itertools.combinations(axes, 2):
        for quarters in (1, 2, 3):
            turned = pool(images.rot90(quarters, (first, second)))
            assert torch.equal(turned, pooled.rot90(quarters, (first, second)))
    for axis in axes:
        assert torch.equal(pool(images.flip(axis)), pooled.flip(axis))


@pytest.mark.parametrize("height", EDGES)
def test_turns_and_mirrors_of_images_commute_exactly(height: int) -> None:
    for width in EDGES:
        _assert_exactly_equivariant(AntiAliasedPool(2), _integers(2, 3, height, width))


@pytest.mark.parametrize("shape", VOLUMES)
def test_turns_and_mirrors_of_volumes_commute_exactly(shape: tuple[int, ...]) -> None:
    _assert_exactly_equivariant(AntiAliasedPool(3), _integers(2, 2, *shape))


@pytest.mark.parametrize("edge", [5, 6, 8, 9])
@pytest.mark.parametrize("dimension", [2, 3])
def test_a_constant_stays_constant_away_from_the_border(dimension: int, edge: int) -> None:
    pooled = AntiAliasedPool(dimension)(torch.full((1, 2, *[edge] * dimension), 7.0))
    interior = pooled[(slice(None), slice(None), *[slice(1, -1)] * dimension)]
    assert interior.numel()
    assert torch.equal(interior, torch.full_like(interior, 7.0))
    assert float(pooled[(0, 0, *[0] * dimension)]) < 7.0  # zeros lie beyond the border


def test_channels_are_pooled_each_by_itself() -> None:
    images = _integers(2, 3, 6, 7)
    alone = torch.cat([AntiAliasedPool(2)(images[:, i : i + 1]) for i in range(3)], dim=1)
    assert torch.equal(AntiAliasedPool(2)(images), alone)


def test_the_finest_stripes_vanish() -> None:
    """The filter has its zero at the highest frequency, which would fold back onto the mean."""
    stripes = (-1.0) ** torch.arange(16)[None, None, None].expand(1, 1, 16, 16)
    assert torch.equal(AntiAliasedPool(2)(stripes)[..., 1:-1, 1:-1], torch.zeros(1, 1, 6, 6))
