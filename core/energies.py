"""Energies of kernels, and what the elements of a group leave of them.

An element h turns a kernel into h·K = ρ_out(h) K(h⁻¹ ·) ρ_in(h)⁻¹. In irrep coordinates, which are orthonormal, that
is a matrix on the coefficients of each triple of irreps (of output, input, filters), so all that is asked of a kernel
are small matrices, its *Gram matrices*.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate, product

import numpy as np

from parteq.core.groups import Element, FloatArray, Irrep, SymmetryGroup
from parteq.core.layers import PartialLayer
from parteq.core.subgroups import Subgroup

__all__ = ["Action", "Gram", "Triple", "band_of", "broken_energies", "distance", "energy", "errors", "gram_of"]

Triple = tuple[Irrep, Irrep, Irrep]
Gram = dict[Triple, FloatArray]


def gram_of(layer: PartialLayer) -> Gram:
    """Return what measurements need of a kernel: for each triple of irreps (of output, input, filters) Σ k kᵀ.

    The sum is over the copies of the triple, and k flattens the part of the kernel that it acts on. All energies are
    traces of these small matrices: ⟨K, h·K⟩ = Σ tr((ψ_out ⊗ ψ_in ⊗ ψ_filter)(h) Σ k kᵀ).
    """
    kernel = layer.kernel.coefficients().detach().double().cpu()
    places = [
        [(irrep, slice(end - irrep.size, end)) for irrep, end in zip(irreps, _ends(irreps), strict=True)]
        for irreps in layer.kernel.irreps
    ]
    gram: Gram = {}
    for (out, a), (into, b), (filters, s) in product(*places):
        part = kernel[:, a, :, b, s].permute(0, 2, 1, 3, 4).flatten(2).flatten(0, 1).numpy()
        gram[out, into, filters] = gram.get((out, into, filters), 0.0) + part.T @ part
    return gram


def _ends(irreps: Sequence[Irrep]) -> list[int]:
    return list(accumulate(irrep.size for irrep in irreps))


def energy(gram: Gram) -> float:
    """Return ‖K‖², or the smallest number there is for a kernel that is 0."""
    return max(sum(float(np.trace(part)) for part in gram.values()), sys.float_info.min)


class Action:
    """A sum over elements of a group, Σ w h, as it acts on parts of kernels."""

    def __init__(self, elements: Sequence[Element], weights: FloatArray) -> None:
        self.elements, self.weights = elements, weights
        self.values: dict[Irrep, FloatArray] = {}

    def __call__(self, triple: Triple) -> FloatArray:
        """Return Σ w (ψ_out ⊗ ψ_in ⊗ ψ_filter)(h), a matrix on flattened parts."""
        for irrep in triple:
            if irrep not in self.values:
                self.values[irrep] = np.stack([irrep(h) for h in self.elements])
        action = self.values[triple[0]]
        for irrep in triple[1:]:
            grown = action[:, :, None, :, None] * self.values[irrep][:, None, :, None, :]
            size = action.shape[1] * irrep.size
            action = grown.reshape(len(self.elements), size, size)
        total: FloatArray = np.tensordot(self.weights, action, axes=1)
        return total


def errors(gram: Gram, elements: Sequence[Element]) -> list[float]:
    """Return ‖h·K − K‖² / 2‖K‖² for each element."""
    return [distance(gram, Action([h], np.ones(1))) for h in elements]


def broken_energies(grams: Sequence[Gram], group: SymmetryGroup, subgroup: Subgroup | None = None) -> list[float]:
    """Return ‖K − P_S K‖² / ‖K‖² of several kernels on one group, for a subgroup S, by default the whole group."""
    triples = {triple: None for gram in grams for triple in gram}
    band = band_of(grams, group)
    rules = group.factors(band) if subgroup is None else [subgroup.quadrature(band)]
    factors = [Action(elements, weights) for elements, weights in rules]
    projections = {triple: reduce(np.matmul, [factor(triple) for factor in factors]) for triple in triples}
    # As P is an orthogonal projection, ‖K − P K‖² = ‖K‖² − ⟨K, P K⟩.
    return [distance(gram, projections.__getitem__) for gram in grams]


def band_of(grams: Sequence[Gram], group: SymmetryGroup) -> int:
    """Return the highest frequency with which the group acts on kernels."""
    return max(sum(group.frequency(irrep) for irrep in triple) for gram in grams for triple in gram)


def distance(gram: Gram, action: Callable[[Triple], FloatArray]) -> float:
    """Return (⟨K, K⟩ − ⟨K, A K⟩) / ⟨K, K⟩, 0 for a kernel that is 0."""
    left = sum(float(np.trace(part) - np.sum(action(triple) * part)) for triple, part in gram.items())
    return max(left / energy(gram), 0.0)
