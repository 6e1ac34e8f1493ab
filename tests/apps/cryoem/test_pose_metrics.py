"""Alignment and pose errors: the derivation against points that are projected, the errors against those put in."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from parteq.apps.cryoem.alignment import align
from parteq.apps.cryoem.pointgroups import point_group
from parteq.apps.cryoem.pose_metrics import pose_errors, rotation_angles
from parteq.datasets.cryoem.poses import preferred_rotations

OFFSET = np.array([5.0, -8.0, 12.0])


def random_rotations(count: int, seed: int) -> np.ndarray:
    return Rotation.random(count, random_state=seed).as_matrix()


def turns(degrees: float, count: int, seed: int) -> np.ndarray:
    """Rotations by so much about random axes."""
    axes = np.random.default_rng(seed).normal(size=(count, 3))
    return Rotation.from_rotvec(np.radians(degrees) * axes / np.linalg.norm(axes, axis=1, keepdims=True)).as_matrix()


def frame(mirrored: bool, seed: int = 5) -> np.ndarray:
    """A, of either hand."""
    return random_rotations(1, seed)[0] @ np.diag([1, 1, -1 if mirrored else 1])


def estimate(true, shifts, matrix, group, seed=0, centre=(0, 0, 0)):
    """The true poses and shifts, or those of copies about the centre, as poses of the map φ(A x + t)."""
    copies = true @ group[np.random.default_rng(seed).integers(len(group), size=len(true))]
    half_turn = np.diag([1, 1, np.sign(np.linalg.det(matrix))])
    return half_turn @ copies @ matrix, shifts + (true - copies)[:, :2] @ centre + copies[:, :2] @ OFFSET


@given(seed=st.integers(0, 1000), mirrored=st.booleans())
def test_a_moved_and_mirrored_set_of_points_has_the_same_projections(seed, mirrored):
    generator = np.random.default_rng(seed)
    points, shifts, true = generator.normal(size=(7, 3)), generator.normal(size=(4, 2)), random_rotations(4, seed)
    matrix = frame(mirrored, seed)
    rotations, moved = estimate(true, shifts, matrix, point_group("C1"))
    assert np.allclose(np.linalg.det(rotations), 1)
    images = np.einsum("nij,pj->npi", true[:, :2], points) + shifts[:, None]
    # φ(A y + t) has its points at y = Aᵀ(x − t).
    again = np.einsum("nij,pj->npi", rotations[:, :2], (points - OFFSET) @ matrix) + moved[:, None]
    assert np.allclose(images, again)


@pytest.mark.parametrize("symmetry", ["C1", "C5", "D2", "T", "O", "I1", "I2"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_another_frame_is_no_error(symmetry, mirrored):
    true, shifts = random_rotations(60, 1), np.random.default_rng(2).normal(size=(60, 2))
    rotations, moved = estimate(true, shifts, frame(mirrored), point_group(symmetry))
    found = pose_errors(rotations, true, (moved, shifts), symmetry=symmetry)
    assert found.rotation_in_degrees.max() < 1e-5
    assert found.view_direction_in_degrees.max() < 1e-5
    assert found.in_plane_in_degrees.max() < 1e-5
    assert found.shift_in_angstroms.max() < 1e-5
    assert found.alignment.hand == ("mirrored" if mirrored else "same")
    back = found.alignment.rotations_in_true_frame(rotations)
    copies = found.alignment.nearest_copies(rotations, true)
    assert np.allclose(back, copies, atol=1e-6)
    assert np.allclose(found.alignment.shifts_in_true_frame(rotations, moved), shifts, atol=1e-5)


def test_symmetry_is_not_assumed():
    true = random_rotations(80, 1)
    rotations, _ = estimate(true, np.zeros((80, 2)), frame(False), point_group("C5"))
    assert pose_errors(rotations, true).rotation_in_degrees.mean() > 30


AXES = random_rotations(1, 11)[0]


def about_axes(symmetry: str) -> np.ndarray:
    """The group about axes that stand anywhere."""
    return AXES @ point_group(symmetry) @ AXES.T


@pytest.mark.parametrize("symmetry", ["C2", "C5", "D2", "D7", "T", "O", "I1"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_axes_that_stand_anywhere_are_no_error(symmetry, mirrored):
    """Nor is a centre of symmetry elsewhere than the origin."""
    true, shifts = random_rotations(200, 1), np.random.default_rng(2).normal(size=(200, 2))
    rotations, moved = estimate(true, shifts, frame(mirrored), about_axes(symmetry), centre=(3, -2, 4))
    found = pose_errors(rotations, true, (moved, shifts), symmetry=symmetry)
    assert found.rotation_in_degrees.max() < 1e-3
    assert found.shift_in_angstroms.max() < 1e-2
    assert found.alignment.hand == ("mirrored" if mirrored else "same")
    summary = found.summary()
    assert summary["symmetry_axes"] == "found"
    expected, group = about_axes(symmetry), point_group(symmetry)
    elements = found.alignment.axes @ group @ found.alignment.axes.T
    angles = rotation_angles(expected.swapaxes(1, 2)[:, None] @ elements)
    assert angles.min(1).max() < 1e-3
    if symmetry == "C5":
        axis = np.array([summary[f"symmetry_axis_{name}"] for name in "xyz"])
        assert axis == pytest.approx(AXES[:, 2] * np.sign(AXES[2, 2]), abs=1e-5)
    # In the standard setting most of the poses are wrong.
    usual = pose_errors(rotations, true, symmetry=symmetry, axes=np.eye(3))
    assert (usual.rotation_in_degrees < 5).mean() < 0.7
    assert usual.summary()["symmetry_axes"] == "standard"
    known = pose_errors(rotations, true, symmetry=symmetry, axes=AXES)
    assert known.rotation_in_degrees.max() < 1e-3


@pytest.mark.parametrize("symmetry", ["C5", "D2", "D7", "T", "O"])
@pytest.mark.parametrize("count", [12, 60, 300])
def test_axes_do_not_make_poses_by_chance_right(symmetry, count):
    both = random_rotations(count, 1), random_rotations(count, 2)
    errors, usual = (pose_errors(*both, symmetry=symmetry, **axes) for axes in ({}, {"axes": np.eye(3)}))
    assert not errors.alignment.axes_found
    assert errors.rotation_in_degrees == pytest.approx(usual.rotation_in_degrees, abs=1e-6)


def test_views_that_are_right_do_not_make_turns_by_chance_right():
    """Most are seen along one direction and turned in the plane: near a copy about it no more than between copies."""
    generator = np.random.default_rng(0)
    true, spin = preferred_rotations(600, generator), generator.uniform(0, 2 * np.pi, 600)
    turned = Rotation.from_rotvec(np.outer(spin, (0, 0, 1))).as_matrix() @ true
    found = pose_errors(turned, true @ AXES, symmetry="C5")
    assert not found.alignment.axes_found
    assert np.median(found.rotation_in_degrees) > 40


@pytest.mark.parametrize("symmetry", ["C2", "C5", "D2", "T", "O"])
def test_some_right_poses_among_others_show_the_axes(symmetry):
    true, noise = random_rotations(1000, 1), turns(3, 1000, 7)
    rotations = noise @ estimate(true, np.zeros((1000, 2)), frame(True), about_axes(symmetry))[0]
    rotations[300:] = random_rotations(700, 9)
    found = pose_errors(rotations, true, symmetry=symmetry)
    assert found.alignment.axes_found
    assert found.rotation_in_degrees[:300].max() < 5
    assert 0.28 < found.summary()["fraction_below_5deg"] < 0.33
    assert found.rotation_median_by_hand["same"] > found.rotation_median_by_hand["mirrored"]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("symmetry", ["C1", "C5", "D2"])
def test_outliers_do_not_spoil_the_alignment(symmetry, together):
    true, generator = random_rotations(1000, 1), np.random.default_rng(0)
    rotations, moved = estimate(true, np.zeros((1000, 2)), frame(True), point_group(symmetry))
    noise = turns(3, 1000, 7)
    rotations, moved = noise @ rotations, moved + generator.normal(size=moved.shape)
    moved[:400] += 30
    rotations[:400] = rotations[:400] @ turns(50, 1, 4) if together else random_rotations(400, 9)
    found = pose_errors(rotations, true, (moved, np.zeros((1000, 2))), symmetry=symmetry)
    good = found.rotation_in_degrees[400:]
    assert np.median(good) == pytest.approx(3, abs=0.15)
    assert good.max() < 4
    assert np.median(found.shift_in_angstroms[400:]) == pytest.approx(np.sqrt(2 * np.log(2)), rel=0.2)
    assert found.alignment.hand == "mirrored"
    assert found.rotation_median_by_hand["same"] > 20


def test_the_parts_of_an_error():
    true = random_rotations(50, 1)
    tilted = Rotation.from_euler("x", 20, degrees=True).as_matrix()
    turned = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    # Half of the estimates are right, so that the alignment is known.
    rotations = np.concatenate([true[:30], turned @ true[30:40], tilted @ true[40:]])
    found = pose_errors(rotations, true)
    assert found.rotation_in_degrees == pytest.approx([0] * 30 + [30] * 10 + [20] * 10, abs=1e-4)
    assert found.in_plane_in_degrees == pytest.approx([0] * 30 + [30] * 10 + [0] * 10, abs=1e-4)
    assert found.view_direction_in_degrees == pytest.approx([0] * 40 + [20] * 10, abs=1e-4)
    summary = found.summary()
    assert summary["rotation_error_mean_deg"] == pytest.approx(10)
    assert summary["rotation_error_median_deg"] == pytest.approx(0, abs=1e-4)
    assert summary["rotation_error_p90_deg"] == pytest.approx(30)
    assert summary["fraction_below_5deg"] == pytest.approx(0.6)
    assert summary["fraction_below_15deg"] == pytest.approx(0.6)
    assert (summary["shift_error_median_angstrom"], summary["hand"], summary["n_particles"]) == (None, "same", 50)


@settings(max_examples=50)
@given(angle=st.floats(0, 180), seed=st.integers(0, 99))
def test_angles_are_precise(angle, seed):
    turned = turns(angle, 1, seed)
    assert rotation_angles(turned) == pytest.approx([angle], abs=1e-6)
    assert rotation_angles(turned) == pytest.approx(np.degrees(Rotation.from_matrix(turned).magnitude()), abs=1e-5)


def test_poses_without_relation_have_large_errors():
    found = pose_errors(random_rotations(2000, 1), random_rotations(2000, 2))
    assert found.rotation_in_degrees.mean() > 110


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_particles(count):
    true = random_rotations(count, 1)
    found = pose_errors(true @ frame(False), true, (np.ones((count, 2)), np.zeros((count, 2))))
    assert found.rotation_in_degrees.max() < 1e-5
    assert found.alignment.hand == "same"
    assert np.isfinite(found.shift_in_angstroms).all()


def test_the_offset_along_a_single_view_is_zero():
    true = np.repeat(np.eye(3)[None], 20, axis=0)
    found = align(true, true, (np.full((20, 2), 3.0), np.zeros((20, 2))))
    assert found.offset == pytest.approx([3, 3, 0])


def test_same_seed_same_numbers_and_fast_enough_for_training():
    true = random_rotations(2000, 1)
    rotations = turns(20, 2000, 2) @ true
    began = time.process_time()
    first = pose_errors(rotations, true).summary()
    assert time.process_time() - began < 1
    assert first == pose_errors(rotations, true).summary()


@pytest.mark.parametrize(
    ("estimated", "true", "reason"),
    [
        (np.zeros((0, 3, 3)), np.zeros((0, 3, 3)), "0 estimated"),
        (np.eye(3)[None], np.eye(3)[None].repeat(2, 0), "1 estimated poses for 2"),
        (2 * np.eye(3)[None], np.eye(3)[None], "the estimated poses"),
        (np.eye(3)[None], -np.eye(3)[None], "the true poses"),
        (np.full((1, 3, 3), np.nan), np.eye(3)[None], "the estimated poses"),
    ],
)
def test_bad_arrays(estimated, true, reason):
    with pytest.raises(ValueError, match=reason):
        pose_errors(estimated, true)
