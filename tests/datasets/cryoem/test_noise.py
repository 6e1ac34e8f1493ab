"""Noise: its variance, its spectrum, and the definition of the ratio."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from parteq.datasets.cryoem.noise import coloured_noise, noise_deviation, signal_variance


@pytest.mark.parametrize("colour", ["white", "pink"])
@pytest.mark.parametrize("box", [16, 17])
def test_unit_variance(colour, box):
    noise = coloured_noise(np.random.default_rng(0), 400, box, colour)
    assert noise.dtype == np.float32
    assert noise.mean() == pytest.approx(0, abs=0.05)
    assert noise.var() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("colour", ["white", "pink"])
def test_batches_do_not_matter(colour):
    at_once = coloured_noise(np.random.default_rng(0), 5, 8, colour)
    generator = np.random.default_rng(0)
    parts = [coloured_noise(generator, n, 8, colour) for n in (2, 3)]
    np.testing.assert_array_equal(at_once, np.concatenate(parts))


def test_power_of_pink_noise_falls_as_one_over_the_frequency():
    power = np.square(np.abs(np.fft.fft2(coloured_noise(np.random.default_rng(0), 2000, 16, "pink")))).mean(0)
    assert power[0, 2] / power[0, 6] == pytest.approx(3, rel=0.15)
    assert power[0, 0] / power[0, 1] == pytest.approx(1, rel=0.15)


def test_the_ratio_is_of_variances_over_all_pixels():
    images = torch.zeros(2, 4, 4)
    images[0, :2] = 2.0  # variance 1 about its mean
    images[1] += 5.0  # a constant image has none
    assert signal_variance(images) == pytest.approx(0.5)
    assert noise_deviation(0.5, 0.125) == pytest.approx(2)
    assert noise_deviation(0.5, float("inf")) == 0
