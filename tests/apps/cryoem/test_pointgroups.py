"""Point groups: that they are groups, and that their axes are those that RELION writes down."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from parteq.apps.cryoem.pointgroups import point_group

AXES = {
    "C5": [(5, (0, 0, 1))],
    "D1": [(2, (1, 0, 0))],
    "D3": [(3, (0, 0, 1)), (2, (1, 0, 0))],
    "D4": [(4, (0, 0, 1)), (2, (1, 0, 0))],
    "T": [(3, (0, 0, 1)), (2, (0, 0.816496, 0.577350))],
    "O": [(3, (1, 1, 1)), (4, (0, 0, 1))],
    "I1": [(2, (1, 0, 0)), (5, (0.850650807, 0, -0.525731114)), (3, (0.934172364, 0.356822076, 0))],
    "I2": [(2, (0, 0, 1)), (5, (0.525731114, 0, 0.850650807)), (3, (0, 0.356822076, 0.934172364))],
}
ORDERS = {"C1": 1, "C5": 5, "c7": 7, "D1": 2, "D3": 6, "D4": 8, "T": 12, "O": 24, "I": 60, "I1": 60, "i2": 60}


def holds(group: np.ndarray, rotation: np.ndarray) -> bool:
    return np.isclose(group, rotation, atol=1e-5).all(axis=(1, 2)).any()


@pytest.mark.parametrize("name", ORDERS)
def test_it_is_a_group(name):
    group = point_group(name)
    assert len(group) == ORDERS[name]
    assert np.allclose(group[0], np.eye(3))
    assert np.allclose(np.linalg.det(group), 1)
    assert all(holds(group, first @ second) for first in group[-3:] for second in group)
    assert len(np.unique(group.round(6).reshape(-1, 9) + 0.0, axis=0)) == len(group)


@pytest.mark.parametrize("name", AXES)
def test_the_axes_are_those_of_relion(name):
    for order, axis in AXES[name]:
        turn = Rotation.from_rotvec(2 * np.pi / order * np.array(axis) / np.linalg.norm(axis)).as_matrix()
        assert holds(point_group(name), turn)


def test_i_is_i2_and_not_i1():
    assert np.array_equal(point_group("I"), point_group("I2"))
    assert not all(holds(point_group("I1"), rotation) for rotation in point_group("I2"))


@pytest.mark.parametrize("name", ["", "C", "C0", "D", "I3", "T2", "Q", "C5C5", "C-1"])
def test_no_such_group(name):
    with pytest.raises(ValueError, match="no point group"):
        point_group(name)
