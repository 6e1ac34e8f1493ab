"""Expectation-maximisation finds poses where there are all but none to begin with, and shells are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from parteq.apps.cryoem.disc import Disc
from parteq.apps.cryoem.estimation import Poses, map_of_poses, refine_with_map, weigh
from parteq.apps.cryoem.expectation import expectation_maximisation
from parteq.apps.cryoem.halves import confidence_across_halves
from parteq.apps.cryoem.pose_metrics import pose_errors
from parteq.apps.cryoem.shells import Shells
from parteq.datasets.cryoem.poses import uniform_rotations
from parteq.datasets.cryoem.projection import phase_ramp, project

from .conftest import BOX, blobs, small_model

COUNT, CPU = 300, torch.device("cpu")


@pytest.fixture(scope="module")
def noisy() -> tuple[TensorDataset, Tensor, Tensor]:
    """Noisy images of the particle, with their rotations and shifts."""
    generator = np.random.default_rng(1)
    rotations = torch.from_numpy(uniform_rotations(COUNT, generator)).float()
    shifts = torch.from_numpy(generator.uniform(-1, 1, (COUNT, 2))).float()
    disc = Disc(BOX, BOX)
    samples = disc.samples(project(blobs(BOX), rotations)) * phase_ramp(shifts, disc.frequencies)
    noise = torch.randn(samples.shape, dtype=samples.dtype, generator=torch.Generator().manual_seed(0))
    samples = samples + 0.4 * samples.abs().square().mean().sqrt() * noise
    return TensorDataset(samples, torch.ones_like(samples.real)), rotations, shifts


def errors(found: Tensor, rotations: Tensor) -> np.ndarray:
    return pose_errors(found.double().numpy(), rotations.double().numpy()).rotation_in_degrees


def test_poses_are_found_from_a_rough_map(noisy, monkeypatch):
    """Of the poses that the first map is made with a fifth are right; shifts are not known at all."""
    monkeypatch.setattr("parteq.apps.cryoem.expectation._ROUNDS", 7)
    data, rotations, shifts = noisy
    model, some = small_model(), rotations.clone()
    some[COUNT // 5 :] = rotations[COUNT // 5 :].roll(1, 0)
    first = map_of_poses(model, data, Poses(some, torch.zeros_like(shifts)), CPU)
    found, moved = expectation_maximisation(model.disc, first, data, torch.zeros_like(shifts), CPU)
    assert np.median(errors(found, rotations)) < 15
    assert (moved - shifts).norm(dim=1).median() < 0.4


@pytest.mark.slow
def test_refined_poses_are_as_right_as_their_confidence_says(noisy):
    """From a fifth of the poses: from none the map may be wrong, which `halves` is to find out."""
    data, rotations, shifts = noisy
    model, some = small_model(), rotations.clone()
    some[COUNT // 5 :] = rotations[COUNT // 5 :].roll(1, 0)
    poses, volume = refine_with_map(model, data, Poses(some, torch.zeros_like(shifts)), CPU)
    right = (errors(poses.rotations, rotations) < 15).mean()
    confidence = float(confidence_across_halves(model, data, poses, CPU).mean())
    assert right - 0.05 < confidence < right + 0.1
    # Particles that are part of the map are surer of it.
    assert confidence < weigh(model, volume, data, poses, CPU).mean()


def test_the_mean_of_each_shell():
    disc = Disc(BOX, BOX)
    shells = Shells(disc, CPU)
    radius = (disc.frequencies * BOX).norm(dim=1).round()
    means = shells.means(radius[None])
    assert means[0, 1:].tolist() == list(range(1, BOX // 2 + 1))
    assert shells.spread(means[0]).equal(radius)
    few = disc.below_cycles(3.4)
    assert shells.means(radius[:few]).tolist() == [0, 1, 2, 3, *[0] * (BOX // 2 - 3)]
