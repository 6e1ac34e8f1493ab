"""Named subgroups: what a measured symmetry is compared with, and what a density can be fixed to.

In the plane, and about an axis in space, subgroups are C_M (turns by multiples of 360°/M) and D_M (those turns and M
flips). Flipping and then turning by θ is

- in the plane a mirror in the line at angle θ/2,
- for D_N and O(2) in space half a turn about the horizontal axis at angle θ/2,
- for the cone a mirror in the vertical plane at angle θ/2,

so a D_M is known by the angle of one line, axis or plane, modulo 180°/M.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from parteq.core.groups import Element, FloatArray, SymmetryGroup, space_group
from parteq.core.rotations import turn_z_to

__all__ = [
    "HIGHEST_ORDER",
    "Quadrature",
    "Subgroup",
    "axial_subgroup",
    "carried",
    "dihedral_subgroup",
    "kind_of",
    "mirror",
    "subgroups",
    "with_inversion",
]

Quadrature = tuple[list[Element], FloatArray]

HIGHEST_ORDER = 8
"""Of the turns of the finite subgroups looked for in SO(2), O(2) and the cone."""


@dataclass(frozen=True, eq=False)
class Subgroup:
    """A subgroup K of a group H, with its Haar integral as elements of H."""

    kind: str
    """What it is, wherever it is: ``"C2"``, ``"D1"``, ``"identity only"``."""
    size: tuple[int, int]
    """Dimension and number of connected components (of a finite group: 0 and its order). Larger subgroups compare
    as larger."""
    quadrature: Callable[[int], Quadrature] = field(repr=False)
    """Maps a band to elements and weights (summing to 1) whose average over K is exact for irreps of H up to it."""
    place: str = ""
    """Where its mirrors or its axis are, if there are others of its kind: ``"(mirror line at 45°)"``, ``"about z"``."""

    @property
    def name(self) -> str:
        """Kind and place, as a report would say it: ``"C2"``, ``"D1 (mirror line at 45°)"``."""
        return f"{self.kind} {self.place}".rstrip()


def kind_of(name: str) -> str:
    """Return what the subgroup of a name is, without its place.

    >>> kind_of("D1 (mirror line at 45°)"), kind_of("SO(2) about z"), kind_of("identity only")
    ('D1', 'SO(2)', 'identity only')
    """
    return re.split(r" (?=\(|about )", name)[0]


def subgroups(group: SymmetryGroup) -> list[Subgroup]:
    """Return the subgroups of ``group`` that have a name, largest first: ``group`` itself, ..., the identity only.

    Of a finite group these are all: for the octahedral and the icosahedral group C_M and D_M about their axes and the
    tetrahedral T. Of a continuous group they are those that are the only one of their kind:

    - SO(2), O(2), cone: SO(2), and C_M up to M = 8; :func:`dihedral_subgroup` gives D_M with a mirror at any angle;
    - SO(3), O(3): SO(3) and the inversion; :func:`axial_subgroup` gives those about an axis.

    A group of one element is listed once, as ``identity only``.
    """
    found = _of_rotations(group) if group.dimension == 3 and not group.about_axis else _about_axis(group)
    whole = Subgroup(group.name, group.size, group.quadrature)
    identity = Subgroup("identity only", (0, 1), _at_every_band(([group.algebra.identity], np.ones(1))))
    between = [subgroup for subgroup in found if identity.size < subgroup.size < whole.size]
    between.sort(key=lambda subgroup: subgroup.size, reverse=True)
    return [*([whole] if whole.size > identity.size else []), *between, identity]


def axial_subgroup(
    group: SymmetryGroup, axis: Sequence[float] | FloatArray, kind: str = "so2", turn: float = 0.0
) -> Subgroup:
    """Return the copy of an axial group of space whose axis points along ``axis``.

    Args:
        group: a group of space without a distinguished axis: SO(3), O(3), octahedral, icosahedral.
        axis: three numbers, not all zero.
        kind: the name of a group about z, as :func:`~parteq.core.groups.space_group` takes it: ``so2``, ``o2``,
            ``cone``, ``cN``, ``dN``. It is turned about z, then carried over by the smallest rotation that takes z to
            the axis.
        turn: in degrees, for its half turns or mirror planes.

    Raises:
        ValueError: ``axis`` has no direction, ``kind`` is no axial group, or ``group`` does not contain the subgroup.
    """
    model = space_group(kind)
    if not model.about_axis or group.about_axis or group.dimension != 3:
        raise ValueError(f"{model} about an axis is no kind of subgroup of {group}")
    if model.continuous and not group.continuous:
        raise ValueError(f"{group} is finite and holds no {model.name}")
    direction = _direction(axis)
    about_z = Rotation.from_euler("z", turn, degrees=True).as_matrix()

    def quadrature(band: int) -> Quadrature:
        elements, weights = model.quadrature(band)
        return [carried(group, direction, about_z @ model.matrix(h) @ about_z.T) for h in elements], weights

    quadrature(0)  # so that a missing element is reported here
    return Subgroup(model.name, model.size, quadrature, f"about {_axis_name(direction)}")


def with_inversion(group: SymmetryGroup, subgroup: Subgroup) -> Subgroup:
    """Return a subgroup of O(3) that holds the inversion, and all of a subgroup of rotations.

    Raises:
        ValueError: ``group`` has no inversion.
    """
    if not group.has_inversion:
        raise ValueError(f"{group} has no inversion")
    inversion = group.algebra.inversion

    def quadrature(band: int) -> Quadrature:
        elements, weights = subgroup.quadrature(band)
        return [*elements, *(h @ inversion for h in elements)], np.tile(weights / 2, 2)

    dimension, components = subgroup.size
    return Subgroup(f"{subgroup.kind} × inversion", (dimension, 2 * components), quadrature, subgroup.place)


def mirror(group: SymmetryGroup, normal: Sequence[float] | FloatArray) -> Subgroup:
    """Return the subgroup of O(3) of one mirror plane.

    Raises:
        ValueError: ``normal`` has no direction, or ``group`` does not contain the mirror.
    """
    direction = _direction(normal)
    reflection = carried(group, direction, np.diag([1.0, 1.0, -1.0]))
    rule = [group.algebra.identity, reflection], np.full(2, 0.5)
    return Subgroup("mirror", (0, 2), _at_every_band(rule), f"(plane normal to {_axis_name(direction)})")


def carried(group: SymmetryGroup, axis: Sequence[float] | FloatArray, matrix: FloatArray) -> Element:
    """Return the element that does about ``axis`` what a matrix does about z.

    It is carried over by the smallest rotation that takes z to the axis.

    Raises:
        ValueError: ``axis`` has no direction, or ``group`` does not contain the element.
    """
    carry = turn_z_to(_direction(axis))
    return group.element(carry @ matrix @ carry.T)


def _direction(axis: Sequence[float] | FloatArray) -> FloatArray:
    """Return a unit vector along an axis.

    Raises:
        ValueError: there is none.
    """
    direction = np.asarray(axis, dtype=float)
    length = float(np.linalg.norm(direction)) if direction.shape == (3,) else 0.0
    if not np.isfinite(length) or length == 0.0:
        raise ValueError(f"an axis is three numbers, not all zero; got {axis}")
    return direction / length


def _about_axis(group: SymmetryGroup) -> list[Subgroup]:
    """List the subgroups of a group of the plane or about an axis."""
    if group.continuous:
        turns = [_cyclic(group, order) for order in range(1, HIGHEST_ORDER + 1)]
        return [Subgroup("SO(2)", (1, 1), lambda band: _turns(group, band + 1)), *turns]
    found = []
    full = int(group.algebra.order()) // (2 if group.flip else 1)
    for order in range(1, full + 1):
        if full % order:
            continue
        found.append(_cyclic(group, order))
        if group.flip:
            found += [dihedral_subgroup(group, order, 180.0 * copy / full) for copy in range(full // order)]
    return found


def _cyclic(group: SymmetryGroup, order: int) -> Subgroup:
    return Subgroup(f"C{order}", (0, order), _at_every_band(_turns(group, order)))


def dihedral_subgroup(group: SymmetryGroup, order: int, angle: float) -> Subgroup:
    """Return the copy of D_M, M = ``order``, in a group with flips.

    Args:
        group: D_N, O(2) or the cone.
        order: number of its turns.
        angle: of one of its lines, axes or planes, in degrees.

    Raises:
        ValueError: ``group`` does not contain it.
    """
    rule = _dihedral(group, order, angle)
    return Subgroup(f"D{order}", (0, 2 * order), _at_every_band(rule), f"({_flips_name(group, order, angle)})")


def _turns(group: SymmetryGroup, order: int) -> Quadrature:
    angles = 2 * np.pi * np.arange(order) / order
    return [group.rotation(float(angle)) for angle in angles], np.full(order, 1.0 / order)


def _dihedral(group: SymmetryGroup, order: int, offset_in_degrees: float) -> Quadrature:
    turns, _ = _turns(group, order)
    flip = group.rotation(2 * np.radians(offset_in_degrees), flipped=True)
    return [*turns, *(turn @ flip for turn in turns)], np.full(2 * order, 0.5 / order)


def _at_every_band(rule: Quadrature) -> Callable[[int], Quadrature]:
    """Return the quadrature of a finite subgroup: its elements, whatever the band."""
    return lambda band: rule


def _flips_name(group: SymmetryGroup, order: int, offset: float) -> str:
    """Say where the flips of a D_M are, as in ``mirror lines at 0° and 90°``."""
    one, many = ("mirror line", "mirror lines") if group.dimension == 2 else ("half-turn axis", "half-turn axes")
    if group.name == "cone":
        one, many = "mirror plane", "mirror planes"
    if order == 1:
        return f"{one} at {offset:g}°"
    if order == 2:
        return f"{many} at {offset:g}° and {offset + 90:g}°"
    return f"{many} every {180 / order:g}° from {offset:g}°"


def _of_rotations(group: SymmetryGroup) -> list[Subgroup]:
    """List subgroups of the groups of space without a distinguished axis."""
    if not group.continuous:
        return _finite_rotations(group)
    if not group.has_inversion:
        return []
    rotations = space_group("so3")

    def proper(band: int) -> Quadrature:
        elements, weights = rotations.quadrature(band)
        return [group.element(rotations.matrix(h)) for h in elements], weights

    pair = [group.algebra.identity, group.algebra.inversion], np.full(2, 0.5)
    return [
        Subgroup(rotations.name, rotations.size, proper),
        Subgroup("inversion", (0, 2), _at_every_band(pair)),
    ]


@lru_cache(maxsize=4)
def _finite_rotations(group: SymmetryGroup) -> list[Subgroup]:
    """List the subgroups of a finite rotation group: two elements are enough to generate any of them."""
    elements = list(group.algebra.elements)
    matrices = np.stack([group.matrix(element) for element in elements])
    flat = matrices.reshape(len(elements), -1)
    products = np.einsum("aij,bjk->abik", matrices, matrices).reshape(-1, flat.shape[1])
    # The trace of AᵀB is largest where they are equal.
    table = (products @ flat.T).argmax(axis=1).reshape(len(elements), len(elements))
    generated = {_closure(table, pair) for pair in combinations_with_replacement(range(len(elements)), 2)}
    found = []
    for members in sorted(generated, key=sorted):
        rule = [elements[i] for i in members], np.full(len(members), 1.0 / len(members))
        kind, place = _rotations_name(matrices[list(members)])
        found.append(Subgroup(kind, (0, len(members)), _at_every_band(rule), place))
    return found


def _closure(table: NDArray[np.int64], members: Sequence[int]) -> tuple[int, ...]:
    """Return the elements generated by some, by number; the table has the number of each product."""
    size, found = 0, np.unique(members)
    while len(found) > size:
        size, found = len(found), np.unique(np.append(found, table[np.ix_(found, found)]))
    return tuple(found.tolist())


def _rotations_name(matrices: FloatArray) -> tuple[str, str]:
    """Return kind and place of a finite group of rotations, other than the octahedral and the icosahedral one."""
    turns: dict[str, int] = {}  # by axis, how many elements share it
    for matrix in matrices:
        values, vectors = np.linalg.eigh(matrix + matrix.T)
        if values[1] < 2 - 1e-6:  # the identity leaves every axis alone
            axis = vectors[:, 2] * np.sign(vectors[np.flatnonzero(np.abs(vectors[:, 2]) > 1e-6)[-1], 2])
            name = _axis_name(axis)
            turns[name] = turns.get(name, 1) + 1
    order = max(turns.values(), default=1)
    principal = min(axis for axis in turns if turns[axis] == order) if turns else "z"
    if order == len(matrices):
        return f"C{order}", f"about {principal}"
    if 2 < order == len(matrices) // 2:
        return f"D{order}", f"about {principal}"
    halves = sorted(axis for axis in turns if turns[axis] == 2)
    kind = "D2" if order == 2 else "T"
    return kind, f"(half turns about {halves[0]} and {halves[1]})" if len(halves) > 1 else ""


def _axis_name(axis: FloatArray) -> str:
    if np.allclose(axis, (0.0, 0.0, 1.0)):
        return "z"
    return "(" + ", ".join(f"{value + 0.0:.2f}" for value in np.round(axis, 2)) + ")"
