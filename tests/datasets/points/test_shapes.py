"""Shapes that topology tells apart: their classes are what they claim."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from parteq.datasets.points.base import ArrayClouds
from parteq.datasets.points.shapes import annuli_and_discs, linked_and_unlinked


@pytest.mark.parametrize("make", [annuli_and_discs, linked_and_unlinked])
def test_seeds_and_balance(make: Callable[..., ArrayClouds]) -> None:
    one, same, other = (make(10, seed=seed, points=100) for seed in (0, 0, 1))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert (one.sizes.tolist(), one.labels is not None and one.labels.tolist()) == ([100] * 10, [0, 1] * 5)


def test_annuli_are_flat_and_as_wide() -> None:
    clouds = annuli_and_discs(6, seed=0)
    for number in range(6):
        positions = clouds.cloud(number)[0].numpy()
        radius = np.linalg.norm(positions, axis=1)
        assert np.linalg.svd(positions)[1][2] < 1e-4
        assert 0.5 <= radius.min() < radius.max() <= 1


def gauss(first: np.ndarray, second: np.ndarray) -> float:
    """The linking number of two closed polygons by Gauss's integral."""
    tangents = [np.roll(ring, -1, 0) - ring for ring in (first, second)]
    middles = [ring + tangent / 2 for ring, tangent in zip((first, second), tangents, strict=True)]
    apart = middles[0][:, None] - middles[1]
    cross = np.cross(tangents[0][:, None], tangents[1][None])
    return float(((apart * cross).sum(-1) / np.linalg.norm(apart, axis=-1) ** 3).sum() / (4 * np.pi))


def test_rings_are_linked_or_not() -> None:
    clouds = linked_and_unlinked(20, seed=0, points=400)
    for number in range(20):
        positions = clouds.cloud(number)[0].double().numpy()
        link = gauss(positions[:200], positions[200:])
        assert clouds.labels is not None
        assert abs(link) == pytest.approx(clouds.labels[number], abs=0.05)


def test_unlinked_rings_are_as_far_apart() -> None:
    clouds = linked_and_unlinked(200, seed=0)
    halves = clouds.batch(range(200)).positions.reshape(200, 2, 64, 3).mean(2)
    distances = (halves[:, 0] - halves[:, 1]).norm(dim=1)
    assert distances[::2].mean().item() == pytest.approx(distances[1::2].mean().item(), abs=0.1)
