"""Turns against scikit-image, deformations that do not fold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import rotate

from parteq.apps.histo.augment import transform
from parteq.apps.histo.warp import NODES, displacements, resample, turned, warp
from parteq.datasets.symmetry import turn

SIZES = st.sampled_from([(16, 16), (15, 15), (9, 20)])


@given(degrees=st.floats(-360, 360), size=SIZES)
def test_turns_are_those_of_scikit_image(degrees, size):
    images = torch.rand(1, 2, *size, dtype=torch.float64)
    found = resample(images, turned(torch.tensor([degrees], dtype=torch.float64), *size))
    expected = rotate(images[0].movedim(0, -1).numpy(), degrees, mode="symmetric", order=1)
    # Far outside of a narrow frame scikit-image reflects the interpolated image, torch the position: they differ there.
    rows, columns = np.indices(size) - (np.array(size)[:, None, None] - 1) / 2
    near = np.hypot(rows, columns) < min(size)
    assert np.allclose(found[0].movedim(0, -1).numpy()[near], expected[near], atol=1e-6)


@pytest.mark.parametrize("quarter", range(4))
def test_quarter_turns_move_pixels(quarter):
    images = torch.rand(3, 2, 11, 11)
    found = resample(images, turned(torch.full((3,), 90.0 * quarter), 11, 11))
    assert torch.allclose(found, transform(images, quarter), atol=1e-5)


def test_turns_are_in_the_sense_of_the_data_sets():
    rows, columns = np.mgrid[:21, :21] - 10
    inside = torch.tensor(np.hypot(rows, columns) < 9)
    images, degrees = torch.rand(3, 1, 21, 21), torch.tensor([10.0, 77.0, -130.0])
    found = resample(images, turned(degrees, 21, 21))
    assert torch.allclose(found[..., inside], turn(images, degrees)[..., inside], atol=1e-5)


@given(seed=st.integers(0, 1000), size=SIZES)
def test_deformations_are_smooth_and_do_not_fold(seed, size):
    # Nodes pushed as far as they go, either way.
    numbers = torch.randint(2, (1, 2, NODES, NODES), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
    height, width = 8 * size[0], 8 * size[1]
    positions = turned(torch.zeros(1), height, width) + displacements(numbers, height, width)
    along_x = (positions[:, 1:, 1:] - positions[:, 1:, :-1]).unbind(-1)
    along_y = (positions[:, 1:, 1:] - positions[:, :-1, 1:]).unbind(-1)
    assert (along_x[0] * along_y[1] - along_x[1] * along_y[0]).min() > 0


def test_displacements_are_shares_of_the_spacing():
    field = displacements(torch.ones(1, 2, NODES, NODES), 51, 101)
    assert torch.allclose(field, torch.tensor([0.2 * 20, 0.2 * 10]))


def test_no_displacement_leaves_the_image():
    images = torch.rand(2, 3, 10, 13)
    assert torch.allclose(resample(images, turned(torch.zeros(2), 10, 13)), images, atol=1e-5)


@pytest.mark.parametrize(("turn", "elastic", "left"), [(True, False, 1 / 2), (False, True, 1 / 2), (True, True, 1 / 4)])
def test_every_other_image_is_warped(turn, elastic, left):
    images = torch.rand(1, 1, 12, 12).expand(1000, -1, -1, -1)
    found = warp(images, torch.arange(1000), turn=turn, elastic=elastic)
    same = (found == images).flatten(1).all(1)
    assert same.float().mean() == pytest.approx(left, abs=0.05)
    assert len(found.flatten(1).unique(dim=0)) == 1 + int((~same).sum())


@given(
    shape=st.sampled_from([(1, 5, 5), (3, 4, 9), (2, 3, 6, 5), (1, 1, 1)]),
    keys=st.lists(st.integers(0, 2**62 - 1), min_size=1, max_size=4),
)
def test_nothing_new_appears(shape, keys):
    images = torch.randint(50, 200, (len(keys), *shape), dtype=torch.uint8)
    found = warp(images, torch.tensor(keys), turn=True, elastic=True)
    assert found.shape == images.shape
    assert found.isfinite().all()
    assert found.min() >= images.min() / 255 - 1e-6
    assert found.max() <= images.max() / 255 + 1e-6


def test_no_tensor_is_left_on_the_cpu():
    # The meta device computes shapes alone, and refuses tensors of other devices.
    images, degrees = torch.empty(2, 3, 8, 9, device="meta"), torch.empty(2, device="meta")
    positions = turned(degrees, 8, 9) + displacements(torch.empty(2, 2, NODES, NODES, device="meta"), 8, 9)
    assert resample(images, positions).is_meta


def test_slices_of_a_volume_are_warped_alike():
    image, keys = torch.rand(8, 2, 1, 9, 9), torch.arange(8)
    found = warp(image.expand(-1, -1, 4, -1, -1), keys, turn=True, elastic=True)
    assert torch.equal(found, found[:, :, :1].expand(-1, -1, 4, -1, -1))
    assert torch.allclose(found[:, :, 0], warp(image[:, :, 0], keys, turn=True, elastic=True), atol=1e-6)
