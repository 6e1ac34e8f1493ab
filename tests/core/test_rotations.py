from __future__ import annotations

import numpy as np
import pytest
import torch

from parteq.core.axis import Axis
from parteq.core.rotations import turn_z_to
from parteq.core.sphere import spread_directions

DIRECTIONS = np.vstack([spread_directions(20), np.eye(3), -np.eye(3), [[1e-6, 0.0, -1.0], [0.0, -1e-9, 1.0]]])


def test_z_is_turned_to_each_direction_by_the_smallest_rotation() -> None:
    turns = turn_z_to(3.0 * DIRECTIONS)
    units = DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
    np.testing.assert_allclose(turns[:, :, 2], units, atol=1e-12)
    np.testing.assert_allclose(turns @ turns.swapaxes(1, 2), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12)
    # Its angle is that from z to the direction.
    np.testing.assert_allclose((np.trace(turns, axis1=1, axis2=2) - 1) / 2, units[:, 2], atol=1e-12)
    np.testing.assert_allclose(turn_z_to(DIRECTIONS[0]), turns[0], atol=1e-12)


def test_minus_z_is_reached_by_half_a_turn_about_y_and_no_direction_by_none() -> None:
    np.testing.assert_allclose(turn_z_to(np.array([0.0, 0.0, -1.0])), np.diag([-1.0, 1.0, -1.0]), atol=1e-12)
    np.testing.assert_allclose(turn_z_to(np.zeros(3)), np.eye(3), atol=1e-12)


@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), (1.0, 2.0, 3.0), (-1.0, 0.5, -0.9)])
def test_the_rotation_of_an_axis_is_the_same(direction: tuple[float, float, float]) -> None:
    torch.testing.assert_close(Axis(direction).rotation(), torch.from_numpy(turn_z_to(np.array(direction))))
