"""Feature fields: which representation the channels of a layer carry.

A :class:`FieldType` is a number of equal *fields*, each carrying one orthogonal representation ρ of H. Channels run
field by field, the components of ρ inside. Representations are direct sums ρ(h) = Q (⊕ ψ_i(h)) Qᵀ of irreps with a
change of basis Q; they are built here by name:

- ``regular``: functions on a finite group (components permute, so pointwise nonlinearities are exact);
- ``irreps``: a plain direct sum, written as a mapping from irrep to multiplicity;
- ``trivial``: invariant channels.

An input with several kinds of channel (scalars and vectors, say) is one field whose ρ is their direct sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from parteq.core.groups import Element, FloatArray, Irrep, SymmetryGroup
from parteq.core.intertwiners import decompose

__all__ = ["FieldType", "Representation", "band_limited", "direct_sum", "regular", "representation", "trivial"]


@dataclass(frozen=True, eq=False)
class Representation:
    """An orthogonal representation ρ(h) = Q (⊕ ψ_i(h)) Qᵀ."""

    name: str
    group: SymmetryGroup
    irreps: tuple[Irrep, ...]
    """The irreps ψ_i in order, with repetition."""
    basis: FloatArray = field(repr=False)
    """Q, square and orthogonal, float64."""
    permutes: bool = False
    """Whether every ρ(h) is a permutation matrix, so that pointwise nonlinearities are equivariant."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle irreps by name: escnn's hold functions that cannot be pickled."""
        identities = tuple(irrep.id for irrep in self.irreps)
        return _restored, (self.name, self.group, identities, self.basis, self.permutes)

    def __deepcopy__(self, memo: dict[int, Any]) -> Representation:
        """Return itself: it never changes."""
        return self

    @property
    def size(self) -> int:
        """Number of components."""
        return int(self.basis.shape[0])

    @property
    def irrep_offsets(self) -> list[int]:
        """Where each irrep starts among the components of the irrep basis."""
        return [0, *np.cumsum([irrep.size for irrep in self.irreps]).tolist()]

    def __call__(self, element: Element) -> FloatArray:
        """Return ρ(h)."""
        blocks = np.zeros_like(self.basis)
        for irrep, start in zip(self.irreps, self.irrep_offsets, strict=False):
            blocks[start : start + irrep.size, start : start + irrep.size] = irrep(element)
        return self.basis @ blocks @ self.basis.T


def _restored(
    name: str, group: SymmetryGroup, identities: tuple[Any, ...], basis: FloatArray, permutes: bool
) -> Representation:
    return Representation(name, group, tuple(group.irrep(identity) for identity in identities), basis, permutes)


def trivial(group: SymmetryGroup) -> Representation:
    """Return the one-dimensional representation on which every element acts as 1."""
    return Representation("trivial", group, (group.irreps(0)[0],), np.eye(1), permutes=True)


@cache
def regular(group: SymmetryGroup) -> Representation:
    """Return the regular representation of a finite group: components are group elements, permuted by ρ(h) e_g = e_hg.

    Raises:
        ValueError: the group is continuous.
    """
    if group.continuous:
        raise ValueError(f"{group.name} has no finite regular representation; use band_limited(group, band)")
    elements = list(group.algebra.elements)
    index = {element: i for i, element in enumerate(elements)}

    def permutation(h: Element) -> FloatArray:
        matrix = np.zeros((len(elements), len(elements)))
        for g, column in index.items():
            matrix[index[h @ g], column] = 1.0
        return matrix

    return representation("regular", group, permutation, len(elements), 0)


def representation(
    name: str, group: SymmetryGroup, matrices: Callable[[Element], FloatArray], size: int, band: int
) -> Representation:
    """Return the representation whose matrices ρ(h), orthogonal and of this size, a function gives.

    It ``permutes`` if the group is finite and all of them are permutation matrices.

    Args:
        name: to show.
        group: the group H.
        matrices: maps an element to ρ(h).
        size: of the matrices.
        band: highest frequency of the irreps in ρ.

    Raises:
        ValueError: the matrices are no orthogonal representation of frequencies up to ``band``.
    """
    parts = decompose(group, matrices, size, band)
    basis = np.concatenate([copy for _, copy in parts], axis=1)
    found = Representation(name, group, tuple(irrep for irrep, _ in parts), basis)
    elements = _telling_elements(group)
    given = np.stack([matrices(h) for h in elements])
    # Integrals over H take higher frequencies, and what is no representation, for something else.
    if not np.allclose(given, np.stack([found(h) for h in elements]), atol=1e-5):
        raise ValueError(f"{name} is no orthogonal representation of {group} with frequencies up to {band}")
    return replace(found, permutes=not group.continuous and bool((np.isclose(given, 0) | np.isclose(given, 1)).all()))


def _telling_elements(group: SymmetryGroup) -> list[Element]:
    """Return all elements of a finite group; of a continuous one some, among them what no quadrature holds."""
    if not group.continuous:
        return list(group.algebra.elements)
    some = [h for elements, _ in group.factors(1) for h in elements]
    if group.dimension == 2 or group.about_axis:
        return [*some, group.rotation(1.0)]
    return [*some, group.element(Rotation.from_rotvec([0.3, 0.5, 0.8]).as_matrix())]


def direct_sum(group: SymmetryGroup, multiplicities: Mapping[Irrep, int]) -> Representation:
    """Return a direct sum of irreps, each as often as asked, in their own basis.

    Raises:
        ValueError: an irrep of another group, a negative multiplicity, or nothing to sum.
    """
    for irrep, count in multiplicities.items():
        if irrep not in group.irreps(group.frequency(irrep)):
            raise ValueError(f"{irrep.name} is not an irrep of {group}")
        if count < 0:
            raise ValueError(f"{irrep.name} cannot be there {count} times")
    if not any(multiplicities.values()):
        raise ValueError("a direct sum needs an irrep")
    irreps = tuple(irrep for irrep, count in multiplicities.items() for _ in range(count))
    name = "+".join(f"{count}x{irrep.name}" for irrep, count in multiplicities.items())
    size = sum(irrep.size for irrep in irreps)
    return Representation(name, group, irreps, np.eye(size), permutes=all(irrep.is_trivial() for irrep in irreps))


def band_limited(group: SymmetryGroup, band: int) -> Representation:
    """Return the band-limited regular representation: irrep ψ of size d as often as functions on H hold it.

    That is d times for irreps of real type, d/2 for complex type, d/4 for quaternionic type (Peter and Weyl).
    """
    return direct_sum(group, {irrep: irrep.size // irrep.sum_of_squares_constituents for irrep in group.irreps(band)})


@dataclass(frozen=True, eq=False)
class FieldType:
    """``count`` fields that carry ``representation`` each: the type of a layer's input or output.

    Raises:
        ValueError: fewer than one field.
    """

    representation: Representation
    count: int

    def __post_init__(self) -> None:
        """Refuse a type without channels."""
        if self.count < 1:
            raise ValueError(f"a type has one field or more, not {self.count}")

    @property
    def group(self) -> SymmetryGroup:
        """The group that acts."""
        return self.representation.group

    @property
    def channels(self) -> int:
        """Number of channels, ``count`` × components."""
        return self.count * self.representation.size

    def __repr__(self) -> str:
        """Read as ``16 fields x regular of D4 (128 channels)``."""
        return f"{self.count} fields x {self.representation.name} of {self.group.name} ({self.channels} channels)"
