"""Expectation-maximisation finds poses where there are all but none to begin with, and shells are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from parteq.apps.cryoem import estimation
from parteq.apps.cryoem.disc import Disc
from parteq.apps.cryoem.estimation import Poses, map_of_poses, refine_with_map, weigh
from parteq.apps.cryoem.expectation import expectation_maximisation
from parteq.apps.cryoem.frames import turned_by_vector
from parteq.apps.cryoem.halves import confidence_across_halves
from parteq.apps.cryoem.pose_metrics import pose_errors
from parteq.apps.cryoem.shells import Shells
from parteq.datasets.cryoem.poses import preferred_rotations, uniform_rotations
from parteq.datasets.cryoem.projection import phase_ramp, project

from .conftest import BOX, blobs, small_model

COUNT, CPU = 300, torch.device("cpu")


def many_blobs(box: int) -> Tensor:
    """Twenty Gaussians anywhere."""
    generator = np.random.default_rng(1)
    centres, weights = 0.16 * box * generator.normal(size=(20, 3, 1, 1, 1)), generator.uniform(0.5, 1, (20, 1, 1, 1))
    apart = ((np.indices((box,) * 3)[::-1] - box // 2 - centres) ** 2).sum(1)
    return torch.from_numpy((weights * np.exp(-apart / (2 * (0.05 * box) ** 2))).sum(0)).float()


def with_noise(samples: Tensor) -> Tensor:
    """Samples with white noise, of 0.4 of their own size."""
    noise = torch.randn(samples.shape, dtype=samples.dtype, generator=torch.Generator().manual_seed(0))
    return samples + 0.4 * samples.abs().square().mean().sqrt() * noise


@pytest.fixture(scope="module")
def noisy() -> tuple[TensorDataset, Tensor, Tensor]:
    """Noisy images of the particle, with their rotations and shifts."""
    generator = np.random.default_rng(1)
    rotations = torch.from_numpy(uniform_rotations(COUNT, generator)).float()
    shifts = torch.from_numpy(generator.uniform(-1, 1, (COUNT, 2))).float()
    disc = Disc(BOX, BOX)
    samples = disc.samples(project(blobs(BOX), rotations)) * phase_ramp(shifts, disc.frequencies)
    return TensorDataset(with_noise(samples), torch.ones_like(samples.real)), rotations, shifts


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


def test_momentum_straightens_a_bent_map_in_fewer_rounds(monkeypatch):
    """Views near an axis, all bent towards it alike: their map agrees with them, and by turns alone both go slowly."""
    box, rotations = 24, torch.from_numpy(preferred_rotations(COUNT, np.random.default_rng(0))).float()
    disc = Disc(box, box)
    samples = disc.samples(project(many_blobs(box), rotations))
    data = TensorDataset(with_noise(samples), torch.ones_like(samples.real))
    views = rotations[:, 2]  # in the frame of the map
    pole = views.sign() * torch.tensor([0.0, 0.0, 1.0])
    bent = Poses(turned_by_vector(rotations.mT, 0.4 * torch.linalg.cross(views, pole)).mT, torch.zeros(COUNT, 2))
    monkeypatch.setattr(estimation, "expectation_maximisation", lambda *_: (bent.rotations, bent.shifts))
    ends = []
    for momentum in (0.0, 0.7):
        monkeypatch.setattr(estimation, "_MOMENTUM", momentum)
        poses, _, _ = refine_with_map(small_model(box=box, size=box), data, bent, CPU, rounds=6)
        ends.append(np.median(errors(poses.rotations, rotations)))
    assert ends[1] < 0.8 * ends[0] < 0.8 * np.median(errors(bent.rotations, rotations))


@pytest.mark.slow
def test_refined_poses_are_as_right_as_their_confidence_says(noisy):
    """From a fifth of the poses: from none the map may be wrong, which `halves` is to find out."""
    data, rotations, shifts = noisy
    model, some = small_model(), rotations.clone()
    some[COUNT // 5 :] = rotations[COUNT // 5 :].roll(1, 0)
    poses, volume, _ = refine_with_map(model, data, Poses(some, torch.zeros_like(shifts)), CPU)
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
