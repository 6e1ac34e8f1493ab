"""Images on a disc: what is kept, where the middle is, and what turns and mirrors do."""

from __future__ import annotations

import pytest
import torch

from parteq.apps.cryoem.disc import Disc
from parteq.datasets.cryoem.projection import slices_of_images


def smooth(size: int) -> torch.Tensor:
    images = torch.randn(4, size, size)
    keep = torch.fft.fftfreq(size)[:, None].square() + torch.fft.rfftfreq(size).square() < 0.15
    return torch.fft.irfft2(torch.fft.rfft2(images) * keep, s=(size, size))


@pytest.mark.parametrize("size", [16, 17])
def test_samples_are_the_transform_about_the_centre(size):
    images = smooth(size)
    disc = Disc(16, size)
    half = slices_of_images(images)
    x, y = (disc.frequencies * 16).round().long().unbind(1)
    assert torch.allclose(disc.samples(images), half[:, y % size, x] * (16 / size**2), atol=1e-5)


def test_images_come_back():
    images = smooth(16)
    images -= images.mean((1, 2), keepdim=True)
    disc = Disc(16, 16)
    assert torch.allclose(disc.images(disc.samples(images)), images, atol=1e-5)


@pytest.mark.parametrize("size", [16, 17, 22, 23])
def test_turned_arrays_are_turned_when_reduced(size):
    images, disc = torch.randn(3, size, size), Disc(16, size)
    reduced = disc.images(disc.samples(images))
    for turn in (lambda a: torch.rot90(a, 1, (-1, -2)), lambda a: a.flip(-1), lambda a: a.mT):
        assert torch.allclose(disc.images(disc.samples(turn(images))), turn(reduced), atol=1e-5)


@pytest.mark.parametrize(("box", "size"), [(15, 16), (18, 16), (6, 16)])
def test_boxes_that_cannot_be_are_refused(box, size):
    with pytest.raises(ValueError, match="must be even"):
        Disc(box, size)
