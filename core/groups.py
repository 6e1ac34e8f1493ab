"""Compact groups that act on the plane or on space, as the rest of the package sees them.

Elements, irreps and subgroups come from escnn; this file adds what escnn leaves open: the action on points, a name a
user can type, and the Haar integral as an *ordered product of one-parameter rules*,

    ∫ f(h) dh  =  Σ_a w_a Σ_b v_b …  f(h_a h_b …),

for example SO(3) = Rz(α) Ry(β) Rz(γ) with equal steps in α, γ and Gauss-Legendre nodes in cos β. Averaging a linear map
over the group then costs the sum of the factors' sizes, not their product.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from typing import TypeAlias

import numpy as np
import scipy.special
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

with warnings.catch_warnings():
    # escnn warns that Clebsch-Gordan coefficients are slow without py3nj; parteq computes its own.
    warnings.simplefilter("ignore")
    from escnn import group as _escnn

__all__ = ["Element", "FloatArray", "Irrep", "SymmetryGroup", "plane_group", "space_group"]

Element: TypeAlias = _escnn.GroupElement
Irrep: TypeAlias = _escnn.IrreducibleRepresentation
FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SymmetryGroup:
    """A compact group with its action on the plane (``dimension`` 2) or on space (``dimension`` 3).

    Groups about an axis act about z; layers in space take an axis that turns z elsewhere. Make one with
    :func:`plane_group` or :func:`space_group`; equal names give the same object.
    """

    name: str
    """The usual name, ``"D4"`` or ``"SO(2)"``."""
    dimension: int
    """2 for the plane, 3 for space."""
    algebra: _escnn.Group = field(repr=False)
    """The abstract group, with its irreps, in escnn."""
    flip: tuple[float, ...] = ()
    """Diagonal of the matrix of the reflection-like generator of groups about an axis, empty where there is none."""

    @property
    def continuous(self) -> bool:
        """Whether the group has infinitely many elements."""
        return bool(self.algebra.continuous)

    @property
    def about_axis(self) -> bool:
        """Whether the group acts in space about a distinguished axis."""
        return self.dimension == 3 and not isinstance(self.algebra, _ROTATION_FAMILIES)

    @property
    def has_inversion(self) -> bool:
        """Whether x → −x belongs to the group beside rotations about every axis, as in O(3)."""
        return isinstance(self.algebra, _escnn.O3)

    @property
    def size(self) -> tuple[int, int]:
        """Dimension of the group and number of its connected components; of a finite group 0 and its order."""
        if not self.continuous:
            return 0, int(self.algebra.order())
        dimension = 3 if isinstance(self.algebra, _ROTATION_FAMILIES) else 1
        return dimension, 2 if self.flip or self.has_inversion else 1

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Pickle and copy by name: groups are singletons."""
        return (plane_group if self.dimension == 2 else space_group), (self.name,)

    def __repr__(self) -> str:
        """Name and space, as in ``D4 on the plane``."""
        return f"{self.name} {'on the plane' if self.dimension == 2 else 'in space'}"

    # -- irreps -------------------------------------------------------------------------------------------------------

    def irreps(self, band: int) -> list[Irrep]:
        """Return the real irreps of frequency at most ``band``, trivial first; a finite group returns all of them."""
        algebra = self.algebra
        if isinstance(algebra, _escnn.SO2 | _escnn.SO3):
            return [algebra.irrep(k) for k in range(band + 1)]
        if isinstance(algebra, _escnn.O2):
            return [algebra.irrep(0, 0), algebra.irrep(1, 0), *(algebra.irrep(1, k) for k in range(1, band + 1))]
        if isinstance(algebra, _escnn.O3):
            return [algebra.irrep(parity, k) for k in range(band + 1) for parity in (0, 1)]
        found = list(algebra.irreps())
        return sorted(found, key=lambda irrep: not irrep.is_trivial())

    def irrep(self, identity: tuple[object, ...]) -> Irrep:
        """Return the irrep with the ``id`` given."""
        return self.algebra.irrep(*identity)

    def frequency(self, irrep: Irrep) -> int:
        """Return the frequency of an irrep (the degree ``l`` in space), 0 for every irrep of a finite group."""
        return int(irrep.id[-1]) if self.continuous else 0

    # -- elements -----------------------------------------------------------------------------------------------------

    def matrix(self, element: Element) -> FloatArray:
        """Return the orthogonal matrix, ``dimension``-square, by which an element acts on points."""
        algebra = self.algebra
        if isinstance(algebra, _escnn.O3):
            return np.asarray(algebra.standard_representation()(element), dtype=float)
        if isinstance(algebra, _ROTATION_FAMILIES):
            return np.asarray(element.to("MAT"), dtype=float)
        value = element.to("radians")
        flipped, angle = (int(value[0]), float(value[1])) if isinstance(value, tuple) else (0, float(value))
        turn = np.eye(self.dimension)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        return turn @ np.diag(self.flip) if flipped else turn

    def element(self, matrix: FloatArray) -> Element:
        """Return the element that acts on points by an orthogonal matrix: the inverse of :meth:`matrix`.

        Raises:
            ValueError: the group holds no such element.
        """
        algebra, elements = self.algebra, []
        proper = bool(np.linalg.det(matrix) > 0)
        if isinstance(algebra, _escnn.O3):
            return algebra.element((int(not proper), matrix if proper else -matrix), "MAT")
        if isinstance(algebra, _escnn.SO3):
            if proper:
                return algebra.element(matrix, "MAT")
        elif self.continuous:
            angle = float(np.arctan2(matrix[1, 0], matrix[0, 0]))  # flips leave x alone
            elements = [self.rotation(angle, flipped) for flipped in ((False, True) if self.flip else (False,))]
        else:
            elements = algebra.elements
        for element in elements:
            if np.allclose(self.matrix(element), matrix, atol=1e-6):
                return element
        raise ValueError(f"{self} holds no element with the matrix {np.round(matrix, 3).tolist()}")

    def rotation(self, angle: float, flipped: bool = False) -> Element:
        """Return the element that flips (if asked) and then turns by ``angle`` radians, in plane and axial groups.

        Raises:
            ValueError: the group holds no such element, or has no distinguished plane.
        """
        algebra = self.algebra
        if isinstance(algebra, _ROTATION_FAMILIES):
            raise ValueError(f"{self.name} has no distinguished plane to turn in")
        if not self.continuous:
            steps = angle / (2 * np.pi) * algebra.rotation_order if self.flip else angle / (2 * np.pi) * algebra.order()
            if abs(steps - round(steps)) > 1e-6:
                raise ValueError(f"{self.name} holds no turn by {np.degrees(angle):.3f} degrees")
        if self.flip:
            return algebra.element((int(flipped), angle % (2 * np.pi)), "radians")
        if flipped:
            raise ValueError(f"{self.name} holds no flip")
        return algebra.element(angle % (2 * np.pi), "radians")

    def factors(self, band: int) -> list[tuple[list[Element], FloatArray]]:
        """Return the ordered factors of the Haar integral, exact for matrix entries of frequency at most ``band``.

        Returns:
            A list of (elements, weights); the integral is over all products, one element from each factor in order.
        """
        algebra = self.algebra
        if not self.continuous:
            elements = list(algebra.elements)
            return [(elements, np.full(len(elements), 1.0 / len(elements)))]
        angles = 2 * np.pi * np.arange(band + 1) / (band + 1)
        equal = np.full(band + 1, 1.0 / (band + 1))
        half = np.full(2, 0.5)
        if isinstance(algebra, _escnn.SO2):
            return [([self.rotation(angle) for angle in angles], equal)]
        if isinstance(algebra, _escnn.O2):
            flips = [self.rotation(0.0), self.rotation(0.0, flipped=True)]
            return [([self.rotation(angle) for angle in angles], equal), (flips, half)]
        # cos β takes Gauss-Legendre nodes: after α and γ are averaged only Legendre polynomials in cos β remain.
        nodes, weights = scipy.special.roots_legendre(band // 2 + 1)

        def about(axis: str, angles: FloatArray) -> list[Element]:
            return [self.element(turn) for turn in Rotation.from_euler(axis, angles[:, None]).as_matrix()]

        turns, tilts = about("z", angles), about("y", np.arccos(nodes))
        rule = [(turns, equal), (tilts, weights / 2), (turns, equal)]
        if isinstance(algebra, _escnn.O3):
            rule.append(([algebra.identity, algebra.inversion], half))
        return rule

    def irreps_on_quadrature(self, irreps: Sequence[Irrep], band: int) -> tuple[list[FloatArray], FloatArray]:
        """Return irreps at the points of the Haar integral that is exact up to ``band``, and the weights.

        Irreps are multiplied factor by factor, ψ(ab) = ψ(a) ψ(b), which spares evaluating them at every product.

        Returns:
            For each irrep its matrices, shape (points, d, d); the weights, shape (points,).
        """
        rule = self.factors(band)
        found = []
        for irrep in irreps:
            factors = [np.stack([irrep(h) for h in elements]).astype(float) for elements, _ in rule]
            found.append(reduce(lambda a, b: (a[:, None] @ b).reshape(-1, irrep.size, irrep.size), factors))
        return found, _joint_weights(rule)

    def quadrature(self, band: int) -> tuple[list[Element], FloatArray]:
        """Return elements and weights (summing to 1) of the Haar integral, exact up to frequency ``band``."""
        rule = self.factors(band)
        combinations = itertools.product(*(elements for elements, _ in rule))
        return [reduce(operator.matmul, combination) for combination in combinations], _joint_weights(rule)


def _joint_weights(rule: list[tuple[list[Element], FloatArray]]) -> FloatArray:
    """Return the weight of every combination of elements, one from each factor, the last factor's changing fastest."""
    return reduce(np.multiply.outer, [weights for _, weights in rule]).reshape(-1)


_ROTATION_FAMILIES = (_escnn.SO3, _escnn.O3, _escnn.Octahedral, _escnn.Icosahedral)


def _normalise(name: str) -> str:
    plain = re.sub(r"[()\s_-]", "", name).lower()
    return "c1" if plain == "none" else plain


def plane_group(name: str) -> SymmetryGroup:
    """Return the group of the plane called ``name``: ``cN``, ``dN``, ``so2``, ``o2`` (``none`` is ``c1``).

    Reflections of D_N and O(2) flip y. Raises ``ValueError`` for any other name.

    >>> d4 = plane_group("d4")
    >>> d4.algebra.order(), len(d4.irreps(0))
    (8, 5)
    >>> quarter = d4.rotation(np.pi / 2)
    >>> (d4.matrix(quarter) @ [1.0, 0.0]).round(6).tolist()
    [0.0, 1.0]
    """
    return _plane_group(_normalise(name))


def space_group(name: str) -> SymmetryGroup:
    """Return the group of space called ``name``.

    About the z axis: ``cN`` and ``so2`` turn; ``dN`` and ``o2`` also turn over, by half a turn about x; ``cone`` is
    O(2) as turns about z and mirrors that contain it. Without an axis: ``so3``, ``o3`` (with inversion),
    ``octahedral``, ``icosahedral`` (rotations only). ``none`` is ``c1``. Raises ``ValueError`` for any other name.

    >>> [irrep.size for irrep in space_group("so3").irreps(2)]
    [1, 3, 5]
    """
    return _space_group(_normalise(name))


@cache
def _plane_group(name: str) -> SymmetryGroup:
    algebra, label = _axial(name)
    if algebra is None or name == "cone":
        raise ValueError(f"unknown group of the plane {name!r}: use c4, d4 (any order), so2, o2 or none")
    return SymmetryGroup(label, 2, algebra, (1.0, -1.0) if name[0] in "do" else ())


@cache
def _space_group(name: str) -> SymmetryGroup:
    families = {
        "so3": ("SO(3)", _escnn.so3_group),
        "o3": ("O(3)", _escnn.o3_group),
        "octahedral": ("octahedral", _escnn.octa_group),
        "icosahedral": ("icosahedral", _escnn.ico_group),
    }
    if name in families:
        label, make = families[name]
        with contextlib.redirect_stdout(None):  # escnn prints what it reads from its cache
            return SymmetryGroup(label, 3, make())
    algebra, label = _axial(name)
    if algebra is None:
        raise ValueError(
            f"unknown group of space {name!r}: use so3, o3, octahedral, icosahedral, so2, o2, cone, c4, d4 (any order)"
        )
    flip = {"c": (), "s": (), "d": (1.0, -1.0, -1.0), "o": (1.0, -1.0, -1.0)}[name[0]]
    return SymmetryGroup(label, 3, algebra, (1.0, -1.0, 1.0) if name == "cone" else flip)


def _axial(name: str) -> tuple[_escnn.Group | None, str]:
    if name == "so2":
        return _escnn.so2_group(), "SO(2)"
    if name in ("o2", "cone"):
        return _escnn.o2_group(), "O(2)" if name == "o2" else "cone"
    match = re.fullmatch(r"([cd])([1-9]\d{0,2})", name)
    if not match:
        return None, name
    order = int(match[2])
    make = _escnn.cyclic_group if match[1] == "c" else _escnn.dihedral_group
    return make(order), name.upper()
