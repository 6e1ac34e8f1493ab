"""Symmetry axes of maps that were turned and moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch.utils.data import TensorDataset

from parteq.apps.cryoem.disc import Disc
from parteq.apps.cryoem.estimation import Poses, map_of_poses
from parteq.apps.cryoem.halves import search_agreement
from parteq.apps.cryoem.matching import Matching
from parteq.apps.cryoem.pointgroups import point_group
from parteq.apps.cryoem.symmetry_axes import NO_SYMMETRY, SymmetryFrame, axes_in_place, axes_of_map, find_axes
from parteq.datasets.cryoem.poses import uniform_rotations
from parteq.datasets.cryoem.potential import potential_of_model
from parteq.datasets.cryoem.projection import project

from .conftest import BOX, small_model

OFFSET = np.array([1.0, -1.5, 0.5])
MATRIX = Rotation.random(random_state=3).as_matrix()


def blobs(box: int, symmetry: str, offset: np.ndarray = OFFSET) -> np.ndarray:
    """A map φ [z, y, x] for which φ(A x + t) has the symmetry, A as above."""
    generator = np.random.default_rng(1)
    centres, weights = 0.28 * box / 2 * generator.normal(size=(6, 3)), generator.uniform(0.5, 1, 6)
    z, y, x = np.indices((box,) * 3) - box // 2
    volume = np.zeros((box,) * 3)
    for element in point_group(symmetry):
        for weight, (a, b, c) in zip(weights, centres @ element.T @ MATRIX.T + offset, strict=True):
            volume += weight * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * (0.05 * box) ** 2))
    return volume


def check(symmetry: str, box: int) -> None:
    found = find_axes(blobs(box, symmetry), symmetry)
    assert found.found
    assert found.highest_correlation > 0.97
    # Sixty copies of six blobs are nearly a ball, and little of them differs between directions.
    assert found.correlation > (0.85 if symmetry == "I1" else 0.97)
    group = point_group(symmetry)
    moved, expected = found.matrix @ group @ found.matrix.T, MATRIX @ group @ MATRIX.T
    angles = Rotation.from_matrix((moved[:, None].swapaxes(2, 3) @ expected).reshape(-1, 3, 3)).magnitude()
    assert np.degrees(angles).reshape(len(group), -1).min(0).max() < 1.5
    # Along an axis that all rotations share the centre is anywhere.
    across = np.eye(3) - expected.mean(0)
    assert np.abs(across @ (found.offset_in_voxels - OFFSET)).max() < 0.3


def test_poses_of_a_symmetric_particle_are_sure_up_to_its_symmetry():
    """An image of a trimer has three poses: each is a third sure, and all together are."""
    volume = torch.from_numpy(blobs(24, "C3", np.zeros(3))).float()
    turns = find_axes(volume.numpy(), "C3").turns
    disc, rotations = Disc(24, 24), torch.from_numpy(uniform_rotations(40, np.random.default_rng(0))).float()
    samples = disc.samples(project(volume, rotations))
    noise = torch.full((len(disc),), 0.1) * samples.abs().square().mean()
    known = samples, torch.ones_like(samples.real), rotations, torch.zeros(40, 2), noise
    one, all_three = (Matching(volume / 24, disc).confidence(*known, turns[:count]) for count in (1, 3))
    assert 0.2 < one.mean() < 0.5
    assert all_three.mean() > 0.9
    assert find_axes(volume.numpy(), "C1") is NO_SYMMETRY
    assert NO_SYMMETRY.turns.equal(torch.eye(3)[None])


def test_encoder_and_search_may_find_another_copy():
    """Each is as right as any."""
    volume = torch.from_numpy(blobs(BOX, "C3")).float()
    frame, model = find_axes(volume.numpy(), "C3"), small_model()
    rotations = torch.from_numpy(uniform_rotations(40, np.random.default_rng(0))).float()
    samples = model.disc.samples(project(volume, rotations))
    data = TensorDataset(samples, torch.ones_like(samples.real))
    copies = rotations @ frame.turns[torch.arange(40) % 3]
    for given, right in ((copies, True), (rotations.roll(1, 0), False)):
        poses = Poses(given, torch.zeros(40, 2))
        agreement = search_agreement(model, volume / BOX, data, poses, torch.device("cpu"), frame)
        assert (agreement > 0.9) is right


def test_images_stand_at_their_symmetry_copies_in_the_map():
    """Fourteen images of a trimer off the middle make a better map with their copies than without."""
    volume = torch.from_numpy(blobs(BOX, "C3")).float()
    frame = SymmetryFrame(MATRIX, OFFSET, 1.0, 1.0, "C3")
    rotations = torch.from_numpy(uniform_rotations(14, np.random.default_rng(0))).float()
    samples = Disc(BOX, BOX).samples(project(volume, rotations))
    data = TensorDataset(samples, torch.ones_like(samples.real))
    poses = Poses(rotations, torch.zeros(14, 2))
    alone, copied = (map_of_poses(small_model(), data, poses, torch.device("cpu"), *f) for f in ((), (frame,)))
    without, with_copies = (np.corrcoef(m.flatten(), volume.flatten())[0, 1] for m in (alone, copied))
    assert with_copies > 0.97
    assert 1 - with_copies < 0.5 * (1 - without)


def test_the_axis_of_a_trimer():
    check("C3", 14)


def test_more_symmetry_than_there_is_is_not_found():
    """Half of the copies by C6 of a trimer are right, and all of D3 are by its axis."""
    volume = blobs(20, "C3")
    for symmetry in ("C6", "D3"):
        frame = find_axes(volume, symmetry)
        assert not frame.found
        assert f"may not have the symmetry {symmetry}" in frame.sentence()
    turn = MATRIX[::-1, ::-1]  # of [z, y, x]
    in_place = ndimage.affine_transform(volume, turn, 10 + OFFSET[::-1] - turn @ (10, 10, 10))
    assert axes_in_place(in_place, "C3").correlation > 0.9
    assert not axes_in_place(volume, "C3").found


def test_axes_are_taken_elsewhere_only_where_they_clearly_stand():
    """Axes in place that are all but the best stay; those by which a map is symmetric all the same do not."""
    volume = blobs(14, "C3", np.zeros(3))
    for degrees, moved in ((2, False), (20, True)):
        # Of [z, y, x]: turned to its axes, and off them again.
        tilt = Rotation.from_rotvec([np.radians(degrees), 0, 0]).as_matrix()
        turn = (MATRIX @ tilt)[::-1, ::-1]
        tilted = ndimage.affine_transform(volume, turn, 7 - turn @ (7, 7, 7))
        frame = axes_of_map(tilted, "C3")
        assert frame.found
        assert frame.stands_in_place is not moved
        angle = np.degrees(np.arccos(abs((tilt @ frame.matrix)[2, 2])))
        assert angle < (2.5 if not moved else 1.5)
    assert not axes_of_map(tilted, "C3", anywhere=True).stands_in_place
    none = axes_of_map(volume, "T")
    assert none.stands_in_place
    assert not none.found


@pytest.mark.slow
@pytest.mark.parametrize("symmetry", ["C2", "D3", "T", "I1"])
def test_the_axes_of_other_groups(symmetry):
    check(symmetry, 32)


def test_without_symmetry_there_is_nothing_to_find():
    found = find_axes(blobs(12, "C1"), "C1")
    assert np.array_equal(found.matrix, np.eye(3))
    assert not found.offset_in_voxels.any()
    with pytest.raises(ValueError, match="no point group"):
        find_axes(blobs(12, "C1"), "Q7")


@pytest.mark.realdata
def test_a_model_is_aligned_as_its_map_is_symmetric(shared_data):
    """A pentamer whose axis of inertia is 3° off."""
    volume = potential_of_model(shared_data / "cryoem" / "3wip.pdb", 32, 5.0, align=True)
    found = find_axes(volume, "C5")
    assert np.degrees(np.arccos(abs(found.matrix[2, 2]))) < 0.5
    assert axes_in_place(volume, "C5").correlation > 0.94
