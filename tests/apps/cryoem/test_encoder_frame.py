"""What an encoder proposes in the frame of its own map, in the frame of the map that is left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.utils.data import TensorDataset

from parteq.apps.cryoem.disc import Disc
from parteq.apps.cryoem.estimation import Poses, map_of_poses, refine_proposed
from parteq.apps.cryoem.halves import Found, encoder_placement
from parteq.apps.cryoem.placement import Placement
from parteq.apps.cryoem.symmetry_axes import NO_SYMMETRY, axes_in_place, find_axes
from parteq.datasets.cryoem.poses import uniform_rotations
from parteq.datasets.cryoem.projection import project

from .conftest import BOX, angles_in_degrees, small_model
from .test_symmetry_axes import blobs

CPU = torch.device("cpu")
TURN = Rotation.random(random_state=5).as_matrix()


def proposals(rotations: torch.Tensor, shifts: torch.Tensor, placement: Placement) -> Poses:
    """Poses as those of the map that is placed so."""
    flip = np.diag([1, 1, np.sign(np.linalg.det(placement.matrix))])
    moved = shifts.double().numpy() + rotations.double().numpy()[:, :2] @ placement.offset
    turned = flip @ rotations.double().numpy() @ placement.matrix
    return Poses(torch.from_numpy(turned).float(), torch.from_numpy(moved).float())


@pytest.mark.parametrize("flip", [1, -1])
def test_proposals_are_told_in_the_frame_of_the_map(particle, flip):
    """Be it mirrored; a third of them are wrong."""
    poses = Poses(particle["rotations"], particle["shifts"])
    placement = Placement(TURN @ np.diag([1, 1, flip]), np.array([2.0, -3.0, 1.0]))
    proposed = proposals(poses.rotations, poses.shifts, placement)
    proposed.rotations[40:] = proposed.rotations[40:].roll(1, 0)
    found = encoder_placement(proposed, poses)
    assert found.hand == ("same" if flip == 1 else "mirrored")
    again = proposed.in_true_frame(found)
    assert angles_in_degrees(again.rotations[:40], poses.rotations[:40]).max() < 0.5
    assert (again.shifts - poses.shifts)[:40].abs().max() < 0.05


@pytest.mark.parametrize("stuck", [False, True])
def test_a_search_begins_at_the_centre_of_the_encoder(particle, stuck):
    """Which is farther from that of the map than shifts are searched for; rotations that are wrong do no harm."""
    data = TensorDataset(particle["samples"], particle["transfer"])
    placement = Placement(TURN, np.array([2.5, -2.5, 1.5]))
    proposed = proposals(particle["rotations"], particle["shifts"], placement)
    if stuck:
        proposed = Poses(proposed.rotations.roll(1, 0), proposed.shifts)
    found = refine_proposed(small_model(), particle["volume"] / BOX, data, proposed, placement, CPU)
    errors = angles_in_degrees(found.rotations, particle["rotations"])
    assert errors.median() < 2
    assert (errors < 5).float().mean() > 0.8
    assert (found.shifts - particle["shifts"]).norm(dim=1).median() < 0.1


def test_the_axes_of_what_is_found_are_put_in_place():
    """Poses and map alike, however doubtful it is that the map has the symmetry."""
    volume = torch.from_numpy(blobs(BOX, "C3")).float()
    rotations = torch.from_numpy(uniform_rotations(60, np.random.default_rng(0))).float()
    samples = Disc(BOX, BOX).samples(project(volume, rotations))
    data, model = TensorDataset(samples, torch.ones_like(samples.real)), small_model()
    poses = Poses(rotations, torch.zeros(60, 2))
    frame = find_axes(volume.numpy(), "C3")
    made = map_of_poses(model, data, poses, CPU, frame)
    assert not axes_in_place(made.numpy(), "C3").found
    found = Found(poses, made, torch.ones(60), frame, None)
    placed = found.with_axes_in_place(model, data, CPU)
    assert axes_in_place(placed.volume.numpy(), "C3").correlation > 0.95
    # The poses make that map, without being told of its symmetry.
    assert axes_in_place(map_of_poses(model, data, placed.poses, CPU).numpy(), "C3").correlation > 0.8
    assert np.array_equal(placed.frame.matrix, np.eye(3))
    assert placed.frame.correlation == frame.correlation
    none = Found(poses, made, torch.ones(60), NO_SYMMETRY, None)
    assert none.with_axes_in_place(model, data, CPU) is none
    doubtful = Found(poses, made, torch.ones(60), find_axes(volume.numpy(), "T"), None)
    assert not doubtful.frame.found
    assert np.array_equal(doubtful.with_axes_in_place(model, data, CPU).frame.matrix, np.eye(3))
