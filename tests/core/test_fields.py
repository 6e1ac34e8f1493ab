from __future__ import annotations

import numpy as np
import pytest

from parteq.core.fields import FieldType, Representation, band_limited, direct_sum, regular, representation, trivial
from parteq.core.groups import Element, SymmetryGroup, plane_group, space_group
from tests.core.helpers import QUATERNION_GROUP, each_irrep_once, some_elements


def _check_representation(representation: Representation) -> None:
    elements = some_elements(representation.group, count=3)[:3]
    for a in elements:
        matrix = representation(a)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(representation.size), atol=1e-8)
        if representation.permutes:
            np.testing.assert_allclose(np.sort(matrix, axis=1)[:, -1], 1, atol=1e-8)
            np.testing.assert_allclose(np.abs(matrix).sum(axis=1), 1, atol=1e-6)
        for b in elements:
            np.testing.assert_allclose(representation(a @ b), matrix @ representation(b), atol=1e-6)


def test_representations_multiply(group: SymmetryGroup, band: int) -> None:
    made = [trivial(group), each_irrep_once(group, band), band_limited(group, band)]
    for rho in made if group.continuous else [*made, regular(group)]:
        _check_representation(rho)


def test_regular_permutes_the_elements(group: SymmetryGroup) -> None:
    if group.continuous:
        with pytest.raises(ValueError, match="no finite regular representation"):
            regular(group)
        return
    representation = regular(group)
    assert representation.permutes
    elements = list(group.algebra.elements)
    for h in elements[:6]:
        for column, g in enumerate(elements):
            row = elements.index(h @ g)
            assert representation(h)[row, column] == pytest.approx(1, abs=1e-8)


@pytest.mark.only(lambda group: not group.continuous)  # else the regular representation is infinite
def test_band_limited_of_a_finite_group_is_its_regular_representation(group: SymmetryGroup) -> None:
    assert sorted(i.id for i in band_limited(group, 0).irreps) == sorted(i.id for i in regular(group).irreps)


def test_quaternionic_irreps_come_a_quarter_of_their_size_often() -> None:
    for rho in (regular(QUATERNION_GROUP), band_limited(QUATERNION_GROUP, 0)):
        assert [irrep.size for irrep in rho.irreps] == [1, 1, 1, 1, 4]
        _check_representation(rho)


def test_multiplicities_by_type() -> None:
    assert [i.id for i in band_limited(plane_group("so2"), 2).irreps] == [(0,), (1,), (2,)]
    assert [i.id for i in band_limited(plane_group("o2"), 1).irreps] == [(0, 0), (1, 0), (1, 1), (1, 1)]
    turning = plane_group("so2").irreps(1)[1]
    assert direct_sum(plane_group("so2"), {turning: 3}).size == 6


def test_channels_of_a_field_type() -> None:
    fields = FieldType(regular(plane_group("d4")), 16)
    assert fields.channels == 128
    assert repr(fields) == "16 fields x regular of D4 (128 channels)"


def test_sums_and_types_that_cannot_be() -> None:
    so2, o2 = plane_group("so2"), plane_group("o2")
    for multiplicities, reason in (
        ({o2.irreps(1)[0]: 1}, r"is not an irrep of SO\(2\)"),
        ({so2.irreps(1)[1]: -1}, "cannot be there -1 times"),
        ({}, "needs an irrep"),
    ):
        with pytest.raises(ValueError, match=reason):
            direct_sum(so2, multiplicities)
    with pytest.raises(ValueError, match="one field or more, not 0"):
        FieldType(trivial(so2), 0)


def test_matrices_that_are_no_representation_are_refused(group: SymmetryGroup) -> None:
    with pytest.raises(ValueError, match=r"is no orthogonal representation|dimensions"):
        representation("doubled", group, lambda h: 2 * np.eye(2), 2, 1)


def test_frequencies_above_the_band_are_refused() -> None:
    for group, frequency in ((plane_group("so2"), 5), (space_group("so3"), 3)):
        irrep = group.irreps(frequency)[-1]
        for band in range(1, frequency):
            with pytest.raises(ValueError, match=r"is no orthogonal representation|dimensions"):
                representation("high", group, irrep, irrep.size, band)
        assert representation("high", group, irrep, irrep.size, frequency).irreps == (irrep,)


def test_quotients_permute() -> None:
    """D4 on the four corners of a square; on the plane it turns them among themselves and does not permute x and y."""
    d4 = plane_group("d4")
    corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])

    def on_corners(h: Element) -> np.ndarray:
        return np.array([[np.allclose(d4.matrix(h) @ c, other) for c in corners] for other in corners], dtype=float)

    assert representation("corners", d4, on_corners, 4, 0).permutes
    assert not representation("plane", d4, d4.matrix, 2, 0).permutes
