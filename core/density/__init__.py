"""Densities over a group: how much of each symmetry a layer keeps.

A density λ ≥ 0 on H, ∫λ = 1, enters a layer only through its Fourier coefficients

    λ̂(ψ) = ∫ λ(h) ψ(h) dh        (a matrix of the size of the irrep ψ).

Uniform λ keeps the full symmetry (λ̂ = 0 but for the trivial irrep), λ = δ_e keeps none (λ̂ = 1), λ uniform on a
subgroup K keeps K (λ̂ projects onto the K-invariant vectors). Learned densities lie between:

- ``softmax``: log λ is band-limited and normalised by an oversampled Haar quadrature;
- ``squared``: λ = |a|² with a band-limited at half the band, rounded up, normalised by a quadrature that is exact.

Every density offers its coefficients up to its ``band``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parteq.core.density.base import BlockLayout, Density
from parteq.core.density.fixed import FixedDensity
from parteq.core.density.learned import LearnedDensity, SoftmaxDensity, SquaredDensity
from parteq.core.groups import SymmetryGroup

__all__ = [
    "BlockLayout",
    "Density",
    "FixedDensity",
    "LearnedDensity",
    "SoftmaxDensity",
    "SquaredDensity",
    "make_density",
]

_LEARNED: dict[str, Callable[[SymmetryGroup, int], LearnedDensity]] = {
    "softmax": SoftmaxDensity,
    "squared": SquaredDensity,
}


def make_density(group: SymmetryGroup, degree: str, band: int) -> Density:
    """Return a density by name.

    Args:
        group: the group H.
        degree: ``full`` (uniform), ``none`` (identity alone), ``softmax`` or ``squared`` (learned; ``learned`` is
            ``softmax``).
        band: highest frequency of λ̂; finite groups take all their irreps whatever it says. What of a kernel has
            a higher one is left out, so ``none`` has all kernels from the sum of the frequencies of output, input and
            filters on; with a band of 0 it is ``full``.

    Raises:
        ValueError: ``degree`` is none of these.

    A learned density is uniform at the start, so that a layer begins with all of the symmetry:

    >>> from parteq.core.groups import plane_group
    >>> density = make_density(plane_group("c4"), "learned", band=0)
    >>> [round(value, 3) for value in density.density().tolist()]
    [1.0, 1.0, 1.0, 1.0]
    """
    if degree == "full":
        return FixedDensity(group, band)
    if degree == "none":
        return FixedDensity(group, band, ([group.algebra.identity], np.ones(1)))
    try:
        return _LEARNED["softmax" if degree == "learned" else degree](group, band)
    except KeyError:
        raise ValueError(f"unknown degree {degree!r}: use learned, softmax, squared, full or none") from None
