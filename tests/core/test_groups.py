from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from parteq.core.groups import SymmetryGroup, plane_group, space_group
from tests.core.helpers import QUATERNION_GROUP, some_elements


def test_names_are_forgiving_and_equal_names_give_one_object() -> None:
    assert plane_group("SO(2)") is plane_group("so2")
    assert plane_group("none") is plane_group("C_1")
    assert space_group("O(3)") is space_group("o3")
    assert plane_group("so2") is not space_group("so2")


@pytest.mark.parametrize("name", ["", "c0", "d0", "so4", "so3", "octahedral", "cone", "c1000", "4"])
def test_unknown_groups_of_the_plane_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"group of the plane|unknown group"):
        plane_group(name)


@pytest.mark.parametrize("name", ["", "c0", "so4", "tetrahedral", "e3"])
def test_unknown_groups_of_space_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown group of space"):
        space_group(name)


def test_copies_are_the_same_object(group: SymmetryGroup) -> None:
    assert copy.deepcopy(group) is group
    assert pickle.loads(pickle.dumps(group)) is group


def test_matrices_are_orthogonal_and_multiply_as_the_elements_do(group: SymmetryGroup) -> None:
    elements = some_elements(group)
    np.testing.assert_allclose(group.matrix(group.algebra.identity), np.eye(group.dimension), atol=1e-12)
    for a in elements:
        np.testing.assert_allclose(group.matrix(a) @ group.matrix(a).T, np.eye(group.dimension), atol=1e-10)
        for b in elements:
            np.testing.assert_allclose(group.matrix(a @ b), group.matrix(a) @ group.matrix(b), atol=1e-7)


def test_elements_are_known_by_their_matrices(group: SymmetryGroup, band: int) -> None:
    for h in some_elements(group):
        found = group.element(group.matrix(h))
        for irrep in group.irreps(band):
            np.testing.assert_allclose(irrep(found), irrep(h), atol=1e-7)


@pytest.mark.parametrize(
    ("lacking", "matrix"),
    [
        (plane_group("c4"), np.diag([1.0, -1.0])),
        (plane_group("so2"), np.diag([1.0, -1.0])),
        (space_group("o2"), np.diag([1.0, 1.0, -1.0])),
        (space_group("cone"), np.diag([1.0, -1.0, -1.0])),
        (space_group("so3"), -np.eye(3)),
        (space_group("octahedral"), -np.eye(3)),
    ],
)
def test_matrices_of_no_element_are_refused(lacking: SymmetryGroup, matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="holds no element"):
        lacking.element(matrix)


def test_rotations_only_or_with_reflections(group: SymmetryGroup) -> None:
    determinants = {round(float(np.linalg.det(group.matrix(h)))) for h in group.quadrature(2)[0]}
    mirrors = {"cone", "O(3)"} if group.dimension == 3 else {"O(2)"}
    reflects = group.name in mirrors or (group.dimension == 2 and group.name.startswith("D"))
    assert determinants == ({1, -1} if reflects else {1})


def test_distinct_elements_act_differently(group: SymmetryGroup) -> None:
    elements = group.quadrature(3)[0]
    matrices = np.round([group.matrix(h) for h in elements], 6).reshape(len(elements), -1) + 0.0
    # β = 0 aside, which Gauss-Legendre avoids, a quadrature holds no element twice.
    assert len(np.unique(matrices, axis=0)) == len(elements)


def test_irreps_are_orthogonal_representations(group: SymmetryGroup, band: int) -> None:
    elements = some_elements(group)
    for irrep in group.irreps(band):
        for a in elements:
            np.testing.assert_allclose(irrep(a) @ irrep(a).T, np.eye(irrep.size), atol=1e-9)
            for b in elements:
                np.testing.assert_allclose(irrep(a @ b), irrep(a) @ irrep(b), atol=1e-7)


def test_irreps_are_irreducible_and_inequivalent(group: SymmetryGroup, band: int) -> None:
    irreps = group.irreps(band)
    assert irreps[0].is_trivial()
    assert len({irrep.id for irrep in irreps}) == len(irreps)
    elements, weights = group.quadrature(2 * band)
    characters = np.array([[np.trace(irrep(h)) for h in elements] for irrep in irreps])
    # The commutant of a real irrep has dimension 1, 2 or 4: its type.
    types = [irrep.sum_of_squares_constituents for irrep in irreps]
    np.testing.assert_allclose((characters * weights) @ characters.T, np.diag(types), atol=1e-8)


@pytest.mark.only(lambda group: not group.continuous)  # else there are infinitely many irreps
def test_functions_on_a_finite_group_are_filled_by_all_its_irreps(group: SymmetryGroup) -> None:
    filled = sum(irrep.size**2 // irrep.sum_of_squares_constituents for irrep in group.irreps(0))
    assert filled == group.algebra.order()


def test_the_quaternion_group_of_these_tests_is_a_group_with_irreps_of_two_types() -> None:
    group = QUATERNION_GROUP
    elements = group.algebra.elements
    for a in elements:
        for b in elements:
            assert a @ b in elements
            np.testing.assert_allclose(group.matrix(a @ b), group.matrix(a) @ group.matrix(b), atol=1e-12)
            for irrep in group.irreps(0):
                np.testing.assert_array_equal(irrep(a @ b), irrep(a) @ irrep(b))
    characters = np.array([[np.trace(irrep(h)) for h in elements] for irrep in group.irreps(0)])
    np.testing.assert_array_equal(characters @ characters.T / 8, np.diag([1, 1, 1, 1, 4]))


def test_quadrature_integrates_up_to_its_band(group: SymmetryGroup, band: int) -> None:
    for limit in (0, 1, band, 2 * band + 1):
        elements, weights = group.quadrature(limit)
        assert len(elements) == len(weights)
        assert weights.min() > 0
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        for irrep in group.irreps(limit):
            average = np.einsum("q,qab->ab", weights, np.stack([irrep(h) for h in elements]))
            np.testing.assert_allclose(average, np.full_like(average, irrep.is_trivial()), atol=1e-9)


def test_frequencies(group: SymmetryGroup, band: int) -> None:
    frequencies = [group.frequency(irrep) for irrep in group.irreps(band)]
    assert set(frequencies) == (set(range(band + 1)) if group.continuous else {0})


def test_turns_about_the_distinguished_axis() -> None:
    for group in (plane_group("o2"), space_group("cone"), space_group("o2"), plane_group("d6"), plane_group("c6")):
        quarter = group.matrix(group.rotation(np.pi / 3))
        np.testing.assert_allclose(quarter[:2, :2], [[0.5, -(0.75**0.5)], [0.75**0.5, 0.5]], atol=1e-12)
    flip = plane_group("o2")
    np.testing.assert_allclose(flip.matrix(flip.rotation(np.pi, flipped=True)), np.diag([-1.0, 1.0]), atol=1e-12)


def test_turns_that_a_group_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match="no turn by 45"):
        plane_group("c4").rotation(np.pi / 4)
    with pytest.raises(ValueError, match="no turn by 30"):
        space_group("d4").rotation(np.pi / 6)
    with pytest.raises(ValueError, match="no flip"):
        plane_group("so2").rotation(0.0, flipped=True)
    with pytest.raises(ValueError, match="no distinguished plane"):
        space_group("so3").rotation(0.0)


def test_repr_says_where_the_group_acts(group: SymmetryGroup) -> None:
    assert repr(group) == f"{group.name} {'on the plane' if group.dimension == 2 else 'in space'}"
