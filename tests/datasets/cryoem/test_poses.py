"""Euler angles and random orientations."""

from __future__ import annotations

import numpy as np
import pytest

from parteq.datasets.cryoem.poses import euler_angles, preferred_rotations, rotations_of_angles, uniform_rotations


def test_angles_there_and_back():
    generator = np.random.default_rng(0)
    angles = generator.uniform([-180, 1, -180], [180, 179, 180], (100, 3))
    rotations = rotations_of_angles(angles)
    assert rotations.shape == (100, 3, 3)
    np.testing.assert_allclose(euler_angles(rotations), angles, atol=1e-9)


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_poles_keep_the_rotation(tilt):
    rotations = rotations_of_angles(np.array([[40.0, tilt, 25.0], [-170.0, tilt, 3.0]]))
    np.testing.assert_allclose(rotations_of_angles(euler_angles(rotations)), rotations, atol=1e-7)


def test_the_direction_of_view_and_the_turn_in_the_plane():
    rotation = rotations_of_angles(np.array([[30.0, 60.0, 0.0]]))[0]
    rot, tilt = np.deg2rad([30.0, 60.0])
    np.testing.assert_allclose(
        rotation.T @ [0, 0, 1], [np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)], atol=1e-12
    )
    alpha = np.deg2rad(20.0)
    in_plane = np.array([[np.cos(alpha), -np.sin(alpha), 0], [np.sin(alpha), np.cos(alpha), 0], [0, 0, 1]])
    np.testing.assert_allclose(in_plane @ rotation, rotations_of_angles(np.array([[30.0, 60.0, -20.0]]))[0], atol=1e-12)


@pytest.mark.parametrize("draw", [uniform_rotations, preferred_rotations])
def test_draws_are_rotations_and_repeat(draw):
    rotations = draw(50, np.random.default_rng(1))
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    np.testing.assert_array_equal(rotations, draw(50, np.random.default_rng(1)))


def test_uniform_directions_have_no_axis_and_preferred_ones_do():
    uniform, preferred = (draw(4000, np.random.default_rng(2)) for draw in (uniform_rotations, preferred_rotations))
    heights = uniform[:, 2, 2]
    # The height of a uniform point on the sphere is uniform.
    assert heights.mean() == pytest.approx(0, abs=0.03)
    assert np.square(heights).mean() == pytest.approx(1 / 3, abs=0.02)
    assert (np.abs(preferred[:, 2, 2]) > np.cos(np.deg2rad(30))).mean() > 0.7
    assert (preferred[:, 2, 2] > 0).mean() == pytest.approx(0.5, abs=0.04)
    turned_in_plane = np.exp(1j * np.deg2rad(euler_angles(preferred)[:, 2]))
    assert abs(turned_in_plane.mean()) < 0.05
