"""Intertwiners: how copies of an irrep sit inside a larger representation.

For an orthogonal representation T of H and an irrep ψ, the Haar average

    Π(X) = ∫ T(h) X ψ(h)ᵀ dh

projects any matrix X onto the maps A with T(h) A = A ψ(h). By Schur, AᵀA is a multiple of the identity, for irreps of
real, complex and quaternionic type alike, so every non-zero average is, once scaled, an isometric copy of ψ in T.
Averages of fixed probes, each taken in the complement of the copies already found, decompose T. Because Π is canonical
and the probes are fixed numbers, the result is the same on every machine up to rounding: weights stored on one mean the
same on another. (An eigenvector routine would leave signs and mixtures to the linear-algebra library.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from parteq.core.groups import Element, FloatArray, Irrep, SymmetryGroup

__all__ = ["copies_of_irrep", "decompose", "triple_product_basis"]

Matrices = Callable[[Element], FloatArray]


def copies_of_irrep(
    group: SymmetryGroup, representation: Matrices, dimension: int, band: int, irrep: Irrep
) -> list[FloatArray]:
    """Return orthonormal copies of ``irrep`` inside ``representation``.

    Args:
        group: the group H.
        representation: orthogonal matrices T(h), ``dimension``-square.
        dimension: the size of T.
        band: highest frequency in T.
        irrep: the irrep ψ of size d.

    Returns:
        A list of ``dimension`` × d matrices A with AᵀA = 1, T(h) A = A ψ(h), images orthogonal to each other.
    """
    rule = [
        (weights, np.stack([representation(h) for h in elements]), np.stack([irrep(h) for h in elements]))
        for elements, weights in group.factors(band + group.frequency(irrep))
    ]
    probes = np.random.Generator(np.random.PCG64(0))
    complement = np.eye(dimension)
    copies: list[FloatArray] = []
    while len(copies) * irrep.size < dimension:
        average = complement @ probes.standard_normal((dimension, irrep.size))
        for weights, outer, inner in reversed(rule):
            average = np.einsum("q,qab,bc,qdc->ad", weights, outer, average, inner, optimize=True)
        scale = np.linalg.norm(average) / np.sqrt(irrep.size)
        if scale < 1e-7:
            break
        copies.append(average / scale)
        complement = complement - copies[-1] @ copies[-1].T
    return copies


def decompose(
    group: SymmetryGroup, representation: Matrices, dimension: int, band: int
) -> list[tuple[Irrep, FloatArray]]:
    """Split an orthogonal representation into irreps.

    Returns:
        Pairs (ψ, A), A being ``dimension`` × d with T(h) A = A ψ(h); all A side by side are an orthogonal matrix.

    Raises:
        ValueError: the copies found do not fill the space (the matrices given are no orthogonal representation of
            frequency at most ``band``).
    """
    parts = [
        (irrep, copy)
        for irrep in group.irreps(band)
        for copy in copies_of_irrep(group, representation, dimension, band, irrep)
    ]
    filled = sum(irrep.size for irrep, _ in parts)
    if filled != dimension:
        raise ValueError(f"irreps up to frequency {band} fill {filled} of {dimension} dimensions")
    return parts


def triple_product_basis(
    group: SymmetryGroup, first: Irrep, second: Irrep, third: Irrep, band: int
) -> list[tuple[Irrep, FloatArray]]:
    """Return copies of every irrep of frequency at most ``band`` in the product first ⊗ second ⊗ third.

    This is the irrep-adapted basis of kernel coefficients: output irrep, input irrep, filter irrep. It goes in two
    steps of Clebsch-Gordan, first ⊗ second → ψ', then ψ' ⊗ third → ψ.

    Returns:
        Pairs (ψ, A), A being (d₁ d₂ d₃) × d, row-major in the three indices, orthonormal over all pairs.
    """
    basis = []
    inner_band = group.frequency(first) + group.frequency(second)
    wanted = group.irreps(band)
    for middle in group.irreps(inner_band):
        for inner in _pair_product(group, first.id, second.id, middle.id):
            for irrep in wanted:
                for outer in _pair_product(group, middle.id, third.id, irrep.id):
                    product = np.einsum("pm,mtd->ptd", inner, outer.reshape(middle.size, third.size, irrep.size))
                    basis.append((irrep, product.reshape(-1, irrep.size)))
    return sorted(basis, key=lambda pair: [irrep.id for irrep in wanted].index(pair[0].id))


@lru_cache(maxsize=4096)
def _pair_product(
    group: SymmetryGroup, first: tuple[Any, ...], second: tuple[Any, ...], into: tuple[Any, ...]
) -> list[FloatArray]:
    a, b, c = (group.algebra.irrep(*identity) for identity in (first, second, into))
    frequencies = [group.frequency(irrep) for irrep in (a, b, c)]
    if frequencies[2] > frequencies[0] + frequencies[1] or frequencies[2] < abs(frequencies[0] - frequencies[1]):
        return []  # outside the triangle of frequencies no copy can be
    matrices = lru_cache(maxsize=None)(lambda h: np.kron(a(h), b(h)))
    return copies_of_irrep(group, matrices, a.size * b.size, frequencies[0] + frequencies[1], c)
