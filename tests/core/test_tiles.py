"""Packing of triples into tiles: nothing lost, nothing twice, little left empty."""

from __future__ import annotations

import numpy as np
import pytest

from parteq.core.density import make_density
from parteq.core.fields import regular
from parteq.core.filters import grid_points, pixel_bank
from parteq.core.groups import Irrep, SymmetryGroup, plane_group
from parteq.core.tiles import Tiles, pack_triples
from tests.core.helpers import each_irrep_once, ring_filters


def _field(group: SymmetryGroup) -> tuple[Irrep, ...]:
    """Return irreps with repetition."""
    return (*each_irrep_once(group, 1).irreps, *each_irrep_once(group, 0).irreps)


def _tiles(group: SymmetryGroup, band: int, degree: str) -> Tiles:
    filters = ring_filters(group, (0.0, 1.0), (0, 1)).bank.irreps
    return pack_triples(make_density(group, degree, band), _field(group), _field(group)[1:], filters)


@pytest.mark.parametrize("degree", ["full", "softmax"])
def test_every_element_has_a_row_and_every_coefficient_a_column(group: SymmetryGroup, band: int, degree: str) -> None:
    tiles = _tiles(group, band, degree)
    taken = tiles.elements[tiles.kinds].any(axis=2).reshape(-1)
    np.testing.assert_array_equal(np.sort(tiles.rows[taken]), np.arange(len(tiles.outputs)))
    assert len(np.unique(tiles.columns)) == tiles.columns.size
    assert tiles.columns.max() < len(tiles.kinds) * tiles.elements.shape[2]


def test_an_element_is_a_unit_vector_in_the_output_irrep_it_feeds(group: SymmetryGroup, band: int) -> None:
    tiles, sizes = _tiles(group, band, "softmax"), [irrep.size for irrep in _field(group)]
    unpacked = np.zeros((len(tiles.outputs), len(tiles.kinds), tiles.elements.shape[2]))
    rows = tiles.rows.reshape(len(tiles.kinds), -1)
    for tile, kind in enumerate(tiles.kinds):
        np.add.at(unpacked[:, tile], rows[tile], tiles.elements[kind])
    energy = (unpacked.reshape(len(unpacked), -1)[:, tiles.columns] ** 2).sum(axis=(1, 3))
    fed = np.add.reduceat(energy, np.cumsum([0, *sizes[:-1]]), axis=1)
    np.testing.assert_allclose(fed, np.eye(len(sizes))[tiles.outputs], atol=1e-9)


def test_sizes_that_divide_one_another_leave_nothing_empty() -> None:
    group = plane_group("d4")
    bank = pixel_bank(group, grid_points(5, 2))
    assert bank is not None
    irreps = regular(group).irreps
    tiles = pack_triples(make_density(group, "softmax", 0), irreps, irreps, bank.irreps)
    assert len(tiles.rows) == len(tiles.outputs) == tiles.columns.size == 8 * 8 * 25
