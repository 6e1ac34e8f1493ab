"""The irrep-adapted basis of kernel coefficients, for every distinct triple (output, input, filter) of irreps.

On the coefficients of a triple (J, l, j) the group acts by J ⊗ l ⊗ j, which splits into irreps ψ
(:func:`parteq.core.intertwiners.triple_product_basis`). In that basis P_λ is λ̂(ψ) on each copy of ψ. A fixed density
projects onto K-invariant vectors; its basis holds those vectors alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parteq.core.cache import cached_arrays
from parteq.core.density import BlockLayout, Density, FixedDensity
from parteq.core.groups import FloatArray, Irrep, SymmetryGroup
from parteq.core.intertwiners import triple_product_basis

__all__ = ["TripleBasis", "triple_basis"]


@dataclass(frozen=True, eq=False)
class TripleBasis:
    """The irrep-adapted basis of every distinct triple of irreps, padded to one shape.

    Attributes:
        elements: basis elements, shape (types, n, dJ, dl, dj), zero where padded.
        mixing: for each pair of elements of a type, the entry of λ̂ that couples them in the flat vector of a density;
            one past the last entry where none does. Shape (types, n, n).
        counts: number of true elements of each type.
    """

    elements: FloatArray
    mixing: NDArray[np.int64]
    counts: NDArray[np.int64]


def triple_basis(density: Density, outs: list[Irrep], ins: list[Irrep], filters: list[Irrep]) -> TripleBasis:
    """Return the basis of all triples of distinct irreps, in row-major order, from disk or built."""
    group = density.group
    fixed = density.exact if isinstance(density, FixedDensity) else None
    digest = "learned" if fixed is None else hashlib.sha256(np.round(fixed, 9).tobytes()).hexdigest()
    names = [[irrep.id for irrep in irreps] for irreps in (outs, ins, filters)]
    key = f"triple basis|{group!r}|{names}|band {density.band}|{digest}"

    def build() -> dict[str, NDArray[Any]]:
        basis = _triple_bases(group, outs, ins, filters, density.band)
        if fixed is not None:
            basis = _reduce_to_invariants(basis, fixed)
        return {"elements": basis.elements, "mixing": basis.mixing, "counts": basis.counts}

    return TripleBasis(**cached_arrays(key, build))


def _triple_bases(
    group: SymmetryGroup, outs: list[Irrep], ins: list[Irrep], filters: list[Irrep], band: int
) -> TripleBasis:
    """Build the bases of all triples (output, input, filter) of distinct irreps, in row-major order."""
    identities = [irrep.id for irrep in group.irreps(band)]
    layout = BlockLayout.of(group, band)
    offsets, nothing = layout.offsets[:-1], layout.offsets[-1]
    pads = [max(irrep.size for irrep in irreps) for irreps in (outs, ins, filters)]
    elements, mixing = [], []
    for out in outs:
        for into in ins:
            for filt in filters:
                parts = triple_product_basis(group, out, into, filt, band)
                count = sum(irrep.size for irrep, _ in parts)
                tensor = np.zeros((count, *pads))
                index = np.full((count, count), nothing)
                start = 0
                for irrep, copy in parts:
                    d = irrep.size
                    block = copy.T.reshape(d, out.size, into.size, filt.size)
                    tensor[start : start + d, : out.size, : into.size, : filt.size] = block
                    entry = offsets[identities.index(irrep.id)]
                    index[start : start + d, start : start + d] = entry + np.arange(d * d).reshape(d, d)
                    start += d
                elements.append(tensor)
                mixing.append(index)
    counts = np.array([len(tensor) for tensor in elements])
    most = max(1, int(counts.max()))
    padded = np.zeros((len(elements), most, *pads))
    padded_index = np.full((len(elements), most, most), nothing)
    for i, (tensor, index) in enumerate(zip(elements, mixing, strict=True)):
        padded[i, : len(tensor)] = tensor
        padded_index[i, : len(tensor), : len(tensor)] = index
    return TripleBasis(padded, padded_index, counts)


def _reduce_to_invariants(basis: TripleBasis, coefficients: FloatArray) -> TripleBasis:
    """Keep the combinations of basis elements that a projection λ̂ (a fixed density) leaves alone."""
    table = np.append(coefficients, 0.0)[basis.mixing]
    kept = []
    for projection, elements, count in zip(table, basis.elements, basis.counts, strict=True):
        kept.append(np.einsum("rn,nabc->rabc", _range_of_projection(projection[:count, :count]), elements[:count]))
    counts = np.array([len(tensor) for tensor in kept])
    padded = np.zeros((len(kept), max(1, int(counts.max())), *basis.elements.shape[2:]))
    for i, tensor in enumerate(kept):
        padded[i, : len(tensor)] = tensor
    return TripleBasis(padded, np.zeros((len(kept), 0, 0), dtype=int), counts)


def _range_of_projection(projection: FloatArray) -> FloatArray:
    """Return orthonormal rows that span the range of an orthogonal projection: pivoted Gram-Schmidt on its columns, the
    same on every machine (ties go to the first column)."""
    remaining, rows = projection.copy(), []
    for _ in range(round(float(np.trace(projection)))):
        norms = np.round((remaining**2).sum(axis=0), 6)
        row = remaining[:, int(np.argmax(norms))]
        row = row / np.linalg.norm(row)
        rows.append(row)
        remaining = remaining - np.outer(row, row @ remaining)
    return np.array(rows).reshape(len(rows), len(projection))
