from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from parteq.core.groups import Element, Irrep, SymmetryGroup
from parteq.core.intertwiners import copies_of_irrep, decompose, triple_product_basis
from tests.core.helpers import QUATERNION_GROUP, highest_frequency, multiplicity, some_elements


def _mixed_sum(group: SymmetryGroup, irreps: list[Irrep]) -> tuple[int, Callable[[Element], np.ndarray]]:
    """Return a direct sum of irreps seen in a random orthonormal basis: its size and its matrices."""
    size = sum(irrep.size for irrep in irreps)
    basis, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((size, size)))

    def matrices(h: Element) -> np.ndarray:
        blocks, start = np.zeros((size, size)), 0
        for irrep in irreps:
            blocks[start : start + irrep.size, start : start + irrep.size] = irrep(h)
            start += irrep.size
        return basis @ blocks @ basis.T

    return size, matrices


def _check_decomposition(group: SymmetryGroup, band: int) -> None:
    irreps = group.irreps(band)
    counts = [1 + i % 3 for i in range(len(irreps))]
    size, matrices = _mixed_sum(
        group, [irrep for irrep, count in zip(irreps, counts, strict=True) for _ in range(count)]
    )
    parts = decompose(group, matrices, size, band)
    assert [sum(part.id == irrep.id for part, _ in parts) for irrep in irreps] == counts
    basis = np.concatenate([copy for _, copy in parts], axis=1)
    np.testing.assert_allclose(basis.T @ basis, np.eye(size), atol=1e-8)
    for h in some_elements(group):
        for irrep, copy in parts:
            np.testing.assert_allclose(matrices(h) @ copy, copy @ irrep(h), atol=1e-7)


def _check_triples(group: SymmetryGroup, band: int) -> None:
    elements = some_elements(group, count=3)[-2:]
    for triple in itertools.product(group.irreps(band), repeat=3):
        full = highest_frequency(group, *[(irrep,) for irrep in triple])
        basis = triple_product_basis(group, *triple, full)
        whole = np.concatenate([copy for _, copy in basis], axis=1)
        size = int(np.prod([irrep.size for irrep in triple]))
        assert whole.shape == (size, size)
        np.testing.assert_allclose(whole.T @ whole, np.eye(size), atol=1e-7)
        assert sum(irrep.is_trivial() for irrep, _ in basis) == multiplicity(group, list(triple))
        for h in elements:
            product = np.kron(np.kron(triple[0](h), triple[1](h)), triple[2](h))
            for irrep, copy in basis:
                np.testing.assert_allclose(product @ copy, copy @ irrep(h), atol=1e-6)


def test_a_mixed_sum_of_irreps_is_taken_apart(group: SymmetryGroup, band: int) -> None:
    _check_decomposition(group, band)


def test_quaternionic_irreps_are_taken_apart() -> None:
    _check_decomposition(QUATERNION_GROUP, 0)


def test_products_of_three_irreps_are_filled(group: SymmetryGroup, band: int) -> None:
    _check_triples(group, band)


def test_products_of_three_quaternionic_irreps_are_filled() -> None:
    _check_triples(QUATERNION_GROUP, 0)


def test_a_band_keeps_the_low_irreps_of_a_product(group: SymmetryGroup, band: int) -> None:
    irrep = group.irreps(band)[-1]
    full = triple_product_basis(group, irrep, irrep, irrep, 3 * band)
    low = triple_product_basis(group, irrep, irrep, irrep, 1)
    kept = [(part.id, copy) for part, copy in full if group.frequency(part) <= 1]
    assert [part.id for part, _ in low] == [identity for identity, _ in kept]
    for (_, copy), (_, expected) in zip(low, kept, strict=True):
        np.testing.assert_allclose(copy, expected, atol=1e-12)


def test_copies_are_the_same_each_time(group: SymmetryGroup, band: int) -> None:
    irrep = group.irreps(band)[-1]
    size, matrices = _mixed_sum(group, [irrep, irrep])
    first, second = (copies_of_irrep(group, matrices, size, band, irrep) for _ in range(2))
    assert len(first) == 2
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.only(lambda group: group.continuous)  # a finite group takes all its irreps
def test_too_low_a_band_is_refused(group: SymmetryGroup, band: int) -> None:
    irrep = group.irreps(band + 1)[-1]
    with pytest.raises(ValueError, match="irreps up to frequency"):
        decompose(group, irrep, irrep.size, band)
