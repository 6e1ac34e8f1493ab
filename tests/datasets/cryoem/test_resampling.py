"""Volumes on other grids."""

from __future__ import annotations

import numpy as np
import pytest

from parteq.datasets.cryoem.resampling import resample


def gaussian(box: int, pixel_size: float) -> np.ndarray:
    """A blob off the centre, 12 Å wide."""
    axis = (np.arange(box) - box // 2) * pixel_size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.exp(-((x - 7) ** 2 + (y + 4) ** 2 + (z - 1) ** 2) / (2 * 12**2))


@pytest.mark.parametrize("old", [(32, 4.0), (33, 4.0)])
@pytest.mark.parametrize("new", [(16, 8.0), (17, 7.5), (40, 3.1), (24, 4.0), (48, 4.0)])
def test_a_smooth_volume_keeps_its_values_and_its_centre(old, new):
    np.testing.assert_allclose(resample(gaussian(*old), old[1], *new), gaussian(*new), atol=2e-3)


def test_same_field_of_view_is_cropping_in_fourier_space():
    volume = np.random.default_rng(0).normal(size=(12, 12, 12))
    small = resample(volume, 1.0, 6, 2.0)
    expected = np.fft.ifftn(np.fft.fftn(volume)[np.ix_(*[[0, 1, 2, -2, -1]] * 3)])
    # The crop has five frequencies; on the grid of six they are read off by summing them up.
    modes = np.exp(2j * np.pi * np.outer(np.arange(6) * 2, [0, 1, 2, -2, -1]) / 12)
    expected = np.einsum("ai,bj,ck,ijk->abc", modes, modes, modes, np.fft.fftn(expected)).real / 12**3
    np.testing.assert_allclose(small, expected, atol=1e-5)


@pytest.mark.parametrize("box", [6, 7])
def test_on_a_grid_of_the_same_spacing_voxels_stay_and_nothing_comes_from_outside(box):
    volume = np.random.default_rng(0).normal(size=(box, box, box)).astype(np.float32)
    np.testing.assert_allclose(resample(volume, 1.3, box, 1.3), volume, atol=1e-5)
    padded = resample(volume, 1.3, 10, 1.3)
    first = 5 - box // 2
    np.testing.assert_allclose(padded[(slice(first, first + box),) * 3], volume, atol=1e-5)
    assert np.abs(padded).sum() == pytest.approx(np.abs(volume).sum(), rel=1e-4)
