"""Fourier-slice projection: against real space, its adjoint, its gradients, its conventions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from parteq.datasets.cryoem.projection import (
    back_project,
    fourier_slices,
    fourier_volume,
    half_plane,
    images_of_slices,
    phase_ramp,
    project,
    real_space_projections,
    shift_images,
    slices_of_images,
)

BOXES = [16, 17]


def rotations(n: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(Rotation.random(n, np.random.default_rng(seed)).as_matrix())


def blobs(box: int, seed: int = 0, count: int = 6, width: float = 1.6) -> Tensor:
    """A few Gaussians, well inside the box."""
    generator = np.random.default_rng(seed)
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = np.zeros((box, box, box))
    for a, b, c in generator.uniform(-box / 6, box / 6, (count, 3)):
        volume += generator.uniform(0.5, 1) * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * width**2))
    return torch.from_numpy(volume)


def correlation(a: Tensor, b: Tensor) -> float:
    """The least over the images."""
    a, b = (images - images.mean((-2, -1), keepdim=True) for images in (a, b))
    return ((a * b).sum((-2, -1)) / (a.norm(dim=(-2, -1)) * b.norm(dim=(-2, -1)))).min().item()


@pytest.mark.parametrize("box", BOXES)
def test_agrees_with_real_space(box):
    volume, turned = blobs(box), torch.cat([torch.eye(3, dtype=torch.float64)[None], rotations(5)])
    found, expected = project(volume, turned), real_space_projections(volume, turned)
    assert correlation(found, expected) > 0.995
    torch.testing.assert_close(expected[0], torch.roll(volume.sum(0), (box % 2, box % 2), (0, 1)))


@pytest.mark.parametrize("box", BOXES)
def test_a_point_goes_where_the_rotation_takes_it(box):
    """A particle at p in the volume stands at (R p)_xy in the image."""
    turned, place = rotations(4, seed=1), torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64)
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    volume = (-((torch.stack([x, y, z], -1) - place) ** 2).sum(-1) / 4).exp()
    images = project(volume, turned, padding=6)
    pixels = torch.arange(box, dtype=torch.float64) - (box + 1) // 2
    found = torch.stack([images.sum(1) @ pixels, images.sum(2) @ pixels], -1) / images.sum((1, 2))[:, None]
    torch.testing.assert_close(found, (turned @ place)[:, :2], atol=0.05, rtol=0)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("padding", [1, 1.5, 2])
def test_adjoint(box, padding):
    generator = torch.Generator().manual_seed(box)
    volume = torch.randn(box, box, box, generator=generator, dtype=torch.float64)
    images = torch.randn(4, box, box, generator=generator, dtype=torch.float64)
    turned = rotations(4, seed=2)
    one_way = (project(volume, turned, padding) * images).sum()
    other_way = (volume * back_project(images, turned, padding)).sum()
    assert abs(one_way - other_way) < 1e-10 * abs(one_way)


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(5, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    turned = rotations(2, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(project, (volume, turned))


def test_float32_agrees_with_float64():
    volume, turned = blobs(16), rotations(3)
    single = project(volume.float(), turned.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), project(volume, turned), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("box", BOXES)
def test_slices_of_chosen_frequencies_are_those_of_the_plane(box):
    transform, turned = fourier_volume(blobs(box)), rotations(3)
    plane = half_plane(box, dtype=torch.float64)
    whole = fourier_slices(transform, turned, plane)
    few = plane.reshape(-1, 2)[::7]
    torch.testing.assert_close(fourier_slices(transform, turned, few), whole.flatten(1)[:, ::7])
    assert whole[:, plane.norm(dim=-1) >= 0.5].abs().max() == 0


@pytest.mark.parametrize("box", BOXES)
def test_slices_and_images_are_inverse(box):
    slices = fourier_slices(fourier_volume(blobs(box)), rotations(3), half_plane(box, dtype=torch.float64))
    torch.testing.assert_close(slices_of_images(images_of_slices(slices, box)), slices)


def test_in_plane_rotation_by_a_quarter_turns_the_image():
    """R → Rz(α) R turns the image by α from x towards y: about the pixel D // 2 of an even box."""
    volume, turned = blobs(16), rotations(3)
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    images = project(volume, quarter @ turned)
    # rot90 turns from the first axis it is given towards the second; row and column 0 have no opposite.
    expected = torch.rot90(project(volume, turned)[:, 1:, 1:], 1, (2, 1))
    torch.testing.assert_close(images[:, 1:, 1:], expected)


@pytest.mark.parametrize("box", BOXES)
def test_shift_by_whole_pixels(box):
    images = project(blobs(box), rotations(2))
    shifts = torch.tensor([[3.0, 0.0], [-1.0, 2.0]], dtype=torch.float64)
    expected = torch.stack([torch.roll(images[0], 3, 1), torch.roll(images[1], (-1, 2), (1, 0))])
    torch.testing.assert_close(shift_images(images, shifts), expected)


def test_shifts_add_up_and_units_are_those_of_the_frequencies():
    images, plane = project(blobs(16), rotations(2)), half_plane(16, dtype=torch.float64)
    first, second = torch.tensor([[0.3, 1.7]] * 2).double(), torch.tensor([[-1.1, 0.4]] * 2).double()
    torch.testing.assert_close(
        shift_images(shift_images(images, first), second), shift_images(images, first + second), atol=1e-9, rtol=0
    )
    torch.testing.assert_close(phase_ramp(2.5 * first, plane / 2.5), phase_ramp(first, plane))
