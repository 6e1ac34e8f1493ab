"""Stain jitter against scikit-image, blur against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.color import combine_stains, hed2rgb, rgb2hed, rgb_from_hed

from parteq.apps.histo.appearance import AMOUNT_FACTOR, as_unit, blur, gaussian_blur, restain, stain
from parteq.apps.histo.augment import transform

DENSITY = -np.log(1e-6)
"""scikit-image gives amounts of stain in units of this optical density."""


def tissue(count: int = 4, size: int = 8) -> tuple[np.ndarray, torch.Tensor]:
    """Amounts of haematoxylin, eosin and DAB, batch last but one, and the images they make, channels first."""
    amounts = np.random.default_rng(0).uniform(0.003, 0.06, (count, size, size, 3))
    return amounts, torch.tensor(hed2rgb(amounts)).movedim(-1, 1)


def test_bytes_become_numbers_and_numbers_stay():
    assert torch.equal(as_unit(torch.tensor([[0, 255]], dtype=torch.uint8)), torch.tensor([[0.0, 1.0]]))
    numbers = torch.rand(2, 3)
    assert as_unit(numbers) is numbers


@given(
    factors=st.lists(st.floats(0.5, 1.5), min_size=3, max_size=3),
    shifts=st.lists(st.floats(0, 0.3), min_size=3, max_size=3),
)
def test_stains_change_as_scikit_image_has_them(factors, shifts):
    amounts, images = tissue()
    found = restain(images, torch.tensor([factors] * 4).double(), torch.tensor([shifts] * 4).double())
    assert np.allclose(rgb2hed(images.movedim(1, -1).numpy()), amounts, atol=1e-6)
    expected = combine_stains(amounts * factors + np.array(shifts) / DENSITY, rgb_from_hed)
    assert np.allclose(found.movedim(1, -1).numpy(), expected, atol=1e-6)


def test_each_image_has_stains_of_its_own():
    amounts, images = tissue(2)
    factors = torch.tensor([[1.0, 1.0, 1.0], [1.2, 0.9, 1.1]], dtype=torch.float64)
    found = restain(images, factors, torch.zeros(2, 3, dtype=torch.float64))
    assert torch.allclose(found[0], images[0])
    assert np.allclose(found[1].movedim(0, -1).numpy(), hed2rgb(amounts[1] * factors[1].numpy()), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channels_that_are_no_colours_are_stains_of_their_own(channels):
    images = torch.rand(2, channels, 5, 5).clamp(min=0.01)
    factors, shifts = torch.rand(2, channels) + 0.5, torch.rand(2, channels) / 10
    expected = images ** factors[..., None, None] * torch.exp(-shifts)[..., None, None]
    assert torch.allclose(restain(images, factors, shifts), expected, atol=1e-6)


def test_black_stays_dark_and_white_light():
    keys = torch.arange(200)
    black, white = stain(torch.zeros(200, 3, 1, 1), keys), stain(torch.ones(200, 3, 1, 1), keys)
    assert black.max() < 0.05
    assert white.min() > 0.85


@given(channels=st.sampled_from([1, 3]), key=st.integers(0, 2**62 - 1), spatial=st.sampled_from([(4, 7), (2, 4, 5)]))
def test_jitter_is_slight_within_bounds_and_the_same_everywhere(channels, key, spatial):
    levels = torch.randint(30, 226, (1, channels, *spatial), dtype=torch.uint8)
    found = stain(levels, torch.tensor([key]))
    assert found.shape == levels.shape
    assert found.min() >= 0
    assert found.max() <= 1
    turned = stain(levels.flip(-1), torch.tensor([key]))
    assert torch.allclose(turned, found.flip(-1), atol=1e-6)
    if channels == 1:
        density = -as_unit(levels).log()
        assert torch.all((-found.log() - density).abs() <= AMOUNT_FACTOR * density + 0.0501)


@given(
    deviations=st.lists(st.floats(0.1, 1.0), min_size=2, max_size=2), shape=st.sampled_from([(1, 1), (4, 9), (3, 6, 5)])
)
def test_blur_is_that_of_scipy(deviations, shape):
    images = torch.rand(2, 3, *shape, dtype=torch.float64)
    found = gaussian_blur(images, torch.tensor(deviations))
    for image, result, deviation in zip(images, found, deviations, strict=True):
        expected = gaussian_filter(image.numpy(), deviation, mode="nearest", radius=3, axes=(-2, -1))
        assert np.allclose(result.numpy(), expected, atol=1e-6)


def test_no_tensor_is_left_on_the_cpu():
    # The meta device computes shapes alone, and refuses tensors of other devices.
    images, keys = torch.empty(2, 3, 8, 8, device="meta"), torch.empty(2, dtype=torch.int64, device="meta")
    assert stain(images, keys).is_meta
    assert gaussian_blur(images, torch.empty(2, device="meta")).is_meta


def test_every_other_image_is_blurred():
    images = torch.rand(1, 3, 12, 12).expand(1000, -1, -1, -1)
    found = blur(images, torch.arange(1000))
    sharp = (found == images).flatten(1).all(1)
    assert 0.44 < sharp.float().mean() < 0.56
    assert len(found.flatten(1).unique(dim=0)) == 1 + int((~sharp).sum())
    assert torch.all(found.var((2, 3)) <= images.var((2, 3)) * 1.001)


@pytest.mark.parametrize("element", range(8))
def test_blur_and_stain_turn_with_the_image(element):
    images, keys = torch.rand(6, 3, 9, 9), torch.arange(6)
    for alter in (blur, stain):
        assert torch.allclose(
            alter(transform(images, element), keys), transform(alter(images, keys), element), atol=1e-6
        )
