"""Augmented particles are images at the poses they say, whether turned exactly or put into fresh poses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from parteq.apps.cryoem.augment import fresh_poses, quarter_turns_and_mirrors
from parteq.apps.cryoem.disc import Disc
from parteq.datasets.cryoem.projection import fourier_volume, phase_ramp, project

from .conftest import angles_in_degrees, blobs, small_model

COUNT = 80


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, ...]:
    """Images of blobs under a contrast transfer function that falls with frequency, with rotations and shifts."""
    disc = Disc(16, 16)
    generator = torch.Generator().manual_seed(0)
    rotations = torch.linalg.qr(torch.randn(COUNT, 3, 3, generator=generator))[0]
    rotations *= torch.linalg.det(rotations)[:, None, None]
    shifts = torch.rand(COUNT, 2, generator=generator)
    transfer = (1 - disc.frequencies.norm(dim=1)).expand(COUNT, -1)
    samples = transfer * disc.samples(project(blobs(16), rotations)) * phase_ramp(shifts, disc.frequencies)
    return samples, transfer, rotations, shifts


def missing(batch: tuple[Tensor, ...]) -> Tensor:
    """What images hold beyond the projections at their poses."""
    samples, transfer, rotations, shifts = batch
    return samples - small_model().predict(fourier_volume(blobs(16) / 16), transfer, rotations, shifts)


def keys() -> Tensor:
    return torch.randint(2**60, (COUNT,), generator=torch.Generator().manual_seed(1))


def test_quarter_turns_and_mirrors(batch):
    turned = quarter_turns_and_mirrors(Disc(16, 16))(batch, keys())
    assert missing(turned).abs().max() < 0.05 * batch[0].abs().max()
    assert len(set(angles_in_degrees(turned[2], batch[2]).round().tolist())) > 2


def test_fresh_poses(batch):
    """New poses for three in four; noise of the same power, elsewhere; shifts of the same lengths."""
    disc, noise = Disc(16, 16), 0.1 * torch.randn_like(batch[0])
    moved = fresh_poses(disc, blobs(16) / 16, batch[2], batch[3])((batch[0] + noise, *batch[1:]), keys())
    same = angles_in_degrees(moved[2], batch[2]) < 1e-3
    assert 0.1 < same.float().mean() < 0.4
    left = missing(moved)
    assert (left[same] - noise[same]).abs().max() < 0.05 * batch[0].abs().max()
    ratio = left.abs() / (noise + missing(batch)).abs()
    assert (ratio - 1).abs().max() < 1e-2
    assert (left - noise)[~same].abs().mean() > noise.abs().mean()
    assert torch.linalg.det(moved[2]).allclose(torch.ones(COUNT), atol=1e-5)
    lengths = batch[3].norm(dim=1)
    assert (moved[3].norm(dim=1)[:, None] - lengths).abs().amin(1).max() < 1e-5


def test_fresh_poses_keep_to_the_views_of_the_set(batch):
    one = batch[2][:1].expand(COUNT, 3, 3)
    moved = fresh_poses(Disc(16, 16), blobs(16) / 16, one, batch[3])((*batch[:2], one, batch[3]), keys())
    beams = (moved[2][:, 2] * one[:, 2]).sum(1).clamp(-1, 1).acos().rad2deg()
    assert beams.max() < 15.1
    assert beams.mean() > 5
