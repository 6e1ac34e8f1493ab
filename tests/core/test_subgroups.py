from __future__ import annotations

import numpy as np
import pytest

from parteq.core.groups import SymmetryGroup, plane_group, space_group
from parteq.core.subgroups import Subgroup, axial_subgroup, dihedral_subgroup, subgroups


def _few(group: SymmetryGroup) -> list[Subgroup]:
    """Return the subgroups of a group, of a long list every fifth, and of a continuous one some with a place."""
    found = subgroups(group)
    if len(found) > 12:
        return [*found[::5], found[-1]]
    if group.continuous and group.flip:
        found += [dihedral_subgroup(group, order, 15.0) for order in (1, 2, 3)]
    elif group.continuous and group.dimension == 3 and not group.about_axis:
        found += [axial_subgroup(group, (0, 0, 1))]
    return found


def test_the_list_runs_from_the_group_to_the_identity(group: SymmetryGroup) -> None:
    found = subgroups(group)
    assert [k.size for k in found] == sorted((k.size for k in found), reverse=True)
    assert len({k.name for k in found}) == len(found)
    assert found[-1].name == "identity only"
    assert found[-1].size == (0, 1)
    if group.name != "C1":
        assert found[0].name == group.name


def test_finite_subgroups_are_closed_and_have_the_order_they_state(group: SymmetryGroup) -> None:
    for subgroup in _few(group):
        dimension, order = subgroup.size
        if dimension:
            continue
        elements, weights = subgroup.quadrature(3)
        np.testing.assert_allclose(weights, 1 / order, rtol=1e-12)
        matrices = np.array([group.matrix(h) for h in elements]).reshape(len(elements), -1)
        products = np.array([group.matrix(a @ b) for a in elements for b in elements]).reshape(len(elements) ** 2, -1)
        assert len(elements) == order
        assert len(np.unique(np.round(matrices, 5) + 0.0, axis=0)) == order
        gaps = np.abs(products[:, None] - matrices[None]).max(axis=2).min(axis=1)
        assert gaps.max() < 1e-6, f"{subgroup.name} is not closed"


def test_quadratures_average_over_a_group_exactly(group: SymmetryGroup, band: int) -> None:
    for subgroup in _few(group):
        coarse, fine = subgroup.quadrature(band), subgroup.quadrature(2 * band + 3)
        assert coarse[1].sum() == pytest.approx(1, abs=1e-12)
        for irrep in group.irreps(band):
            average = np.einsum("q,qab->ab", coarse[1], np.stack([irrep(h) for h in coarse[0]]))
            finer = np.einsum("q,qab->ab", fine[1], np.stack([irrep(h) for h in fine[0]]))
            np.testing.assert_allclose(average, finer, atol=1e-8)
            # An average over a group, and only over a group, is an orthogonal projection that its elements leave alone.
            np.testing.assert_allclose(average @ average, average, atol=1e-8)
            np.testing.assert_allclose(average, average.T, atol=1e-8)
            for h in fine[0][:: max(1, len(fine[0]) // 7)]:
                np.testing.assert_allclose(irrep(h) @ average, average, atol=1e-6)


def test_the_whole_and_the_identity_are_what_they_say(group: SymmetryGroup, band: int) -> None:
    whole, identity = subgroups(group)[0], subgroups(group)[-1]
    for irrep in group.irreps(band):
        for subgroup, expected in ((whole, float(irrep.is_trivial())), (identity, np.eye(irrep.size))):
            elements, weights = subgroup.quadrature(band)
            average = np.einsum("q,qab->ab", weights, np.stack([irrep(h) for h in elements]))
            if subgroup is whole is identity:
                expected = np.eye(irrep.size)
            np.testing.assert_allclose(average, expected, atol=1e-8)


def _count(names: list[str], start: str) -> int:
    return sum(name.startswith(start) for name in names)


def test_all_subgroups_of_small_groups_are_listed() -> None:
    c12 = [k.name for k in subgroups(plane_group("c12"))]
    assert c12 == ["C12", "C6", "C4", "C3", "C2", "identity only"]
    # D_N has, for each M that divides N, one C_M and N/M copies of D_M.
    d6 = [k.name for k in subgroups(plane_group("d6"))]
    assert [_count(d6, f"D{m}") for m in (1, 2, 3, 6)] == [6, 3, 2, 1]
    assert [_count(d6, f"C{m}") for m in (2, 3, 6)] == [1, 1, 1]


def test_of_continuous_groups_those_are_listed_that_are_the_only_one_of_their_kind() -> None:
    turns = [f"C{m}" for m in (8, 7, 6, 5, 4, 3, 2)]
    for group in (plane_group("o2"), space_group("o2"), space_group("cone")):
        assert [k.name for k in subgroups(group)] == [group.name, "SO(2)", *turns, "identity only"]
    assert [k.name for k in subgroups(plane_group("so2"))] == ["SO(2)", *turns, "identity only"]
    assert [k.name for k in subgroups(space_group("so3"))] == ["SO(3)", "identity only"]
    assert [k.name for k in subgroups(space_group("o3"))] == ["O(3)", "SO(3)", "inversion", "identity only"]


@pytest.mark.parametrize(
    ("name", "turns", "dihedral", "tetrahedral"),
    [
        ("octahedral", {2: 9, 3: 4, 4: 3}, {2: 4, 3: 4, 4: 3}, 1),
        ("icosahedral", {2: 15, 3: 10, 5: 6}, {2: 5, 3: 10, 5: 6}, 5),
    ],
)
def test_all_subgroups_of_the_finite_groups_of_rotations_are_listed(
    name: str, turns: dict[int, int], dihedral: dict[int, int], tetrahedral: int
) -> None:
    names = [k.name for k in subgroups(space_group(name))]
    assert {m: _count(names, f"C{m} about") for m in turns} == turns
    assert {m: _count(names, f"D{m} ") for m in dihedral} == dihedral
    assert _count(names, "T ") == tetrahedral
    assert len(names) == 2 + sum(turns.values()) + sum(dihedral.values()) + tetrahedral


@pytest.mark.parametrize("angle", [0.0, 15.0, 45.0, 90.0])
def test_mirrors_are_where_their_names_say(angle: float) -> None:
    along = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    plane, over, cone = plane_group("o2"), space_group("o2"), space_group("cone")

    def flip(group: SymmetryGroup, kind: str) -> np.ndarray:
        subgroup = dihedral_subgroup(group, 1, angle)
        assert subgroup.name == f"D1 ({kind} at {angle:g}°)"
        return group.matrix(subgroup.quadrature(0)[0][1])

    mirror = 2 * np.outer(along, along) - np.eye(2)
    np.testing.assert_allclose(flip(plane, "mirror line"), mirror, atol=1e-9)
    axis = np.append(along, 0.0)
    np.testing.assert_allclose(flip(over, "half-turn axis"), 2 * np.outer(axis, axis) - np.eye(3), atol=1e-9)
    normal = np.array([-along[1], along[0], 0.0])
    np.testing.assert_allclose(flip(cone, "mirror plane"), np.eye(3) - 2 * np.outer(normal, normal), atol=1e-9)


@pytest.mark.parametrize("axis", [(0, 0, 1), (0, 0, -2), (1, 0, 0), (1.0, -2.0, 0.5)])
@pytest.mark.parametrize(("name", "kind"), [("so3", "so2"), ("so3", "o2"), ("o3", "cone"), ("o3", "d3"), ("so3", "c5")])
def test_axial_subgroups_keep_their_axis(axis: tuple[float, float, float], name: str, kind: str) -> None:
    group = space_group(name)
    subgroup = axial_subgroup(group, axis, kind)
    elements, weights = subgroup.quadrature(2)
    assert weights.sum() == pytest.approx(1)
    unit = np.array(axis) / np.linalg.norm(axis)
    kept = {round(float(unit @ group.matrix(h) @ unit), 6) for h in elements}
    assert kept == ({1.0, -1.0} if kind in ("o2", "d3") else {1.0})
    vector = np.einsum("q,qab->ab", weights, np.stack([group.matrix(h) for h in elements]))
    np.testing.assert_allclose(vector, 0 * vector if kind in ("o2", "d3") else np.outer(unit, unit), atol=1e-8)


def test_axial_subgroups_are_named_by_their_axis() -> None:
    assert axial_subgroup(space_group("so3"), (0, 0, 3)).name == "SO(2) about z"
    assert axial_subgroup(space_group("so3"), (0.01, -0.02, 1)).name == "SO(2) about (0.01, -0.02, 1.00)"
    assert axial_subgroup(space_group("octahedral"), (1, 1, 1), "c3").name == "C3 about (0.58, 0.58, 0.58)"


@pytest.mark.parametrize(
    ("name", "axis", "kind", "reason"),
    [
        ("so3", (1, 0, 0), "cone", "holds no element"),
        ("octahedral", (1, 1, 1), "so2", "finite"),
        ("octahedral", (0, 0, 1), "c3", "holds no element"),
        ("so3", (0, 0, 0), "so2", "not all zero"),
        ("so3", (0, 1), "so2", "three numbers"),
        ("so3", (0, np.nan, 1), "so2", "three numbers"),
        ("so3", (0, 0, 1), "so3", "no kind of subgroup"),
        ("cone", (0, 0, 1), "so2", "no kind of subgroup"),
    ],
)
def test_axial_subgroups_that_are_none_are_refused(name: str, axis: tuple[float, ...], kind: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        axial_subgroup(space_group(name), axis, kind)
