"""Surfaces of volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parteq.datasets.base import ArrayDataset
from parteq.datasets.errors import DataError
from parteq.datasets.points.clouds import available_splits, open_clouds
from parteq.datasets.points.volumes import surface_clouds

GRID = np.stack(np.meshgrid(*[np.arange(21) - 10] * 3, indexing="ij"), -1)


def volumes(masks: np.ndarray, **facts: object) -> ArrayDataset:
    return ArrayDataset(masks.astype(np.uint8)[:, None], np.arange(len(masks)) % 2, **facts)


def test_a_ball_has_the_surface_of_a_sphere() -> None:
    ball = (np.linalg.norm(GRID, axis=-1) <= 7)[None]
    data = surface_clouds(volumes(255 * ball), points=2000)
    positions, _ = data.cloud(0)
    assert (len(data), data.unit, data.labels is not None and data.labels.tolist()) == (1, "voxel", [0])
    assert positions.norm(dim=1).numpy() == pytest.approx(7, abs=1)
    assert positions.mean(0).abs().max() < 0.5


def test_axes() -> None:
    """A box of one voxel along z, three along y and five along x, at the edge of the volume."""
    mask = np.zeros((1, 9, 9, 9), bool)
    mask[0, 0, 3:6, 2:7] = True
    positions, _ = surface_clouds(volumes(mask), points=3000).cloud(0)
    assert positions.amin(0).numpy() == pytest.approx([-2.5, -1.5, -4.5], abs=0.1)
    assert positions.amax(0).numpy() == pytest.approx([2.5, 1.5, -3.5], abs=0.1)


def test_seeds() -> None:
    masks = np.linalg.norm(GRID, axis=-1)[None].repeat(2, 0) <= 5
    one, same, other = (surface_clouds(volumes(masks), 20, seed) for seed in (0, 0, 1))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert not np.array_equal(one.cloud(0)[0], one.cloud(1)[0])


def test_medmnist(tmp_path: Path) -> None:
    mask = (np.abs(GRID).max(-1) <= 3).astype(np.uint8)[None]
    np.savez(tmp_path / "x.npz", train_images=mask, train_labels=[[0]], val_images=mask, val_labels=[[1]])
    spec = f"surfaces:{tmp_path / 'x.npz'}"
    assert available_splits(spec) == ("train", "val")
    data = open_clouds(spec, "val")
    assert (data.sizes.tolist(), data.labels is not None and data.labels.tolist()) == ([1024], [1])


def test_refused() -> None:
    with pytest.raises(DataError, match="volume 1 is empty"):
        surface_clouds(volumes(np.stack([np.ones((4, 4, 4)), np.zeros((4, 4, 4))])))
    with pytest.raises(DataError, match="surfaces need volumes"):
        surface_clouds(ArrayDataset(np.ones((1, 1, 4, 4), np.uint8), [0]))
