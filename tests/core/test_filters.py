from __future__ import annotations

import numpy as np
import pytest

from parteq.core.filters import grid_points, pixel_bank, point_bank, resolved_frequencies
from parteq.core.groups import SymmetryGroup, plane_group, space_group
from tests.core.helpers import ring_filters, some_elements


def _action(irreps: tuple, h: object) -> np.ndarray:
    size = sum(irrep.size for irrep in irreps)
    blocks, start = np.zeros((size, size)), 0
    for irrep in irreps:
        blocks[start : start + irrep.size, start : start + irrep.size] = irrep(h)
        start += irrep.size
    return blocks


def test_harmonics_are_those_of_the_textbook(group: SymmetryGroup) -> None:
    frequencies = (0, 2, 3) if group.dimension == 2 else (0, 3)
    filters = ring_filters(group, (0.0, 1.0, 2.0)[: len(frequencies)], frequencies)
    assert filters.residual < 1e-9
    assert np.linalg.matrix_rank(filters.mixture, tol=1e-8) == len(filters.mixture) == filters.mixture.shape[1]


def test_harmonics_turn_by_their_irreps(group: SymmetryGroup) -> None:
    filters = ring_filters(group, (0.0, 1.0), (0, 3))
    for h in some_elements(group):
        moved = filters.at(filters.points @ group.matrix(h).T)
        np.testing.assert_allclose(moved, _action(filters.bank.irreps, h) @ filters.bank.values, atol=1e-6)


def test_harmonics_are_finite_at_the_origin_and_on_the_axis(group: SymmetryGroup) -> None:
    points = np.vstack([np.zeros(group.dimension), np.eye(group.dimension), -np.eye(group.dimension)])
    filters = ring_filters(group, (0.0, 1.0), (0, 2))
    values = filters.at(points)
    assert np.isfinite(values).all()
    # The constants come first, one a ring; all others vanish at the origin.
    np.testing.assert_allclose(values[2:, 0], 0, atol=1e-12)


@pytest.mark.parametrize("size", [3, 4])
def test_pixels_turn_by_their_irreps(group: SymmetryGroup, size: int) -> None:
    points = grid_points(size, group.dimension)
    bank = pixel_bank(group, points)
    if bank is None:
        # Some element takes a point off the grid.
        doubled = [2 * points @ group.matrix(h).T for h in group.quadrature(2)[0]]
        assert any(np.abs(moved - np.round(moved)).max() > 1e-3 for moved in doubled)
        return
    # All functions on the grid, orthonormal.
    np.testing.assert_allclose(bank.values @ bank.values.T, np.eye(len(points)), atol=1e-8)
    for h in some_elements(group):
        moved = points @ group.matrix(h).T
        index = np.linalg.norm(moved[:, None] - points[None], axis=-1).argmin(axis=1)
        np.testing.assert_allclose(bank.values[:, index], _action(bank.irreps, h) @ bank.values, atol=1e-7)


def test_the_point_bank_is_the_constant(group: SymmetryGroup) -> None:
    bank = point_bank(group)
    assert bank.irreps[0].is_trivial()
    np.testing.assert_array_equal(bank.values, [[1.0]])


def test_grids_are_read_row_by_row_with_y_up() -> None:
    np.testing.assert_array_equal(grid_points(3, 2)[[0, 1, 3]], [[-1, 1], [0, 1], [-1, 0]])
    np.testing.assert_array_equal(
        grid_points(3, 3)[[0, 1, 3, 9]], [[-1, -1, -1], [0, -1, -1], [-1, 0, -1], [-1, -1, 0]]
    )
    np.testing.assert_array_equal(grid_points(2, 2), [[-0.5, 0.5], [0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])


def test_small_rings_hold_low_frequencies() -> None:
    assert [resolved_frequencies(radius) for radius in (0.0, 0.5, 1.0, 2.0)] == [0, 1, 2, 4]


def test_groups_that_turn_the_grid_use_pixels() -> None:
    for group in (plane_group("c1"), plane_group("d4"), space_group("d2"), space_group("octahedral")):
        assert pixel_bank(group, grid_points(3, group.dimension)) is not None
