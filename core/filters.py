"""Filter banks: the scalar functions that spatial kernels are made of, as representations of the group.

A bank is a list of blocks. The functions Y of a block turn into one another as an irrep ψ of H,

    Y(h x) = ψ(h) Y(x),

so a kernel Σ_s C_s Y_s(x) is acted on by ψ through its coefficients. Two constructions:

- *pixel*: where H maps the sampling grid to itself (C4, D4 and their subgroups on a square, the octahedral group on a
  cube) the grid points themselves are permuted; splitting that permutation into irreps keeps every kernel the grid can
  hold, and equivariance is exact.
- *harmonic*: Gaussian rings (shells) times circular (spherical) harmonics, frequencies limited on each ring to what the
  grid resolves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import scipy.linalg
from scipy.spatial.transform import Rotation

from parteq.core.groups import Element, FloatArray, Irrep, SymmetryGroup, plane_group, space_group
from parteq.core.intertwiners import decompose
from parteq.core.rotations import turn_z_to

__all__ = [
    "FilterBank",
    "TurnableBank",
    "grid_points",
    "harmonic_bank",
    "pixel_bank",
    "point_bank",
    "resolved_frequencies",
    "spherical_harmonics",
]


@dataclass(frozen=True, eq=False)
class FilterBank:
    """Filters sampled on points.

    Attributes:
        group: the group that acts.
        irreps: the irrep ψ of each block.
        values: sampled functions, float64, shape (sum of block sizes, points).
    """

    group: SymmetryGroup
    irreps: tuple[Irrep, ...]
    values: FloatArray

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle irreps by name: escnn's hold functions that cannot be pickled."""
        group, irreps, *rest = (getattr(self, field.name) for field in fields(self))
        return _restored, (type(self), group, tuple(irrep.id for irrep in irreps), *rest)

    def __deepcopy__(self, memo: dict[int, Any]) -> FilterBank:
        """Return itself: it never changes."""
        return self


def _restored(kind: type[FilterBank], group: SymmetryGroup, identities: tuple[Any, ...], *rest: Any) -> FilterBank:
    return kind(group, tuple(group.irrep(identity) for identity in identities), *rest)


@dataclass(frozen=True, eq=False)
class TurnableBank(FilterBank):
    """Filters in space that can be turned to another axis: ``values`` = ``mixing`` @ ``harmonics``.

    Attributes:
        mixing: shape (sum of block sizes, harmonics).
        harmonics: spherical harmonics times shells, shape (harmonics, points).
        generators: how the harmonics turn about x, y and z, antisymmetric, shape (3, harmonics, harmonics).
    """

    mixing: FloatArray
    harmonics: FloatArray
    generators: FloatArray


def grid_points(size: int, dimension: int) -> FloatArray:
    """Return the points of a centred grid in pixels, shape (size**dimension, dimension), coordinates (x, y[, z]).

    The order is that of a row-major array indexed [y, x] or [z, y, x]. In the plane y points up, as in mathematics, so
    that a positive angle turns a picture anticlockwise, as ``torch.rot90`` does; volumes keep their own right-handed
    axes.
    """
    axis = np.arange(size) - (size - 1) / 2
    mesh = np.stack(np.meshgrid(*[axis] * dimension, indexing="ij"), axis=-1)
    points: FloatArray = mesh.reshape(-1, dimension)[:, ::-1].copy()
    if dimension == 2:
        points[:, 1] *= -1
    return points


def resolved_frequencies(radius: float) -> int:
    """Return the highest angular frequency kept on a ring: twice its radius in pixels.

    A ring of radius r has about 2πr samples, which could tell frequencies up to πr apart; the margin keeps aliasing
    low. A ring of radius 0 holds frequency 0 alone.
    """
    return int(np.floor(2 * radius))


def point_bank(group: SymmetryGroup) -> FilterBank:
    """Return the bank of kernels without spatial extent (1×1 convolutions, linear maps): the constant 1."""
    return FilterBank(group, (group.irreps(0)[0],), np.ones((1, 1)))


def pixel_bank(group: SymmetryGroup, points: FloatArray) -> FilterBank | None:
    """Return the bank of all functions on ``points``, or ``None`` where the group does not permute the points."""
    if group.continuous:
        return None

    def permutation(h: Element) -> FloatArray:
        distance = np.linalg.norm((points @ group.matrix(h).T)[:, None] - points[None], axis=-1)
        return np.asarray(distance < 1e-6, dtype=float).T

    if any((permutation(h).sum(axis=0) != 1).any() for h in group.algebra.elements):
        return None
    parts = decompose(group, permutation, len(points), 0)
    values = np.concatenate([copy for _, copy in parts], axis=1).T
    return FilterBank(group, tuple(irrep for irrep, _ in parts), values)


def harmonic_bank(
    group: SymmetryGroup, points: FloatArray, radii: FloatArray, width: float, frequencies: list[int]
) -> FilterBank:
    """Return Gaussian rings times harmonics.

    Args:
        group: the group H on the plane or in space.
        points: where to sample, shape (points, dimension).
        radii: ring radii, in the unit of the points.
        width: standard deviation of the rings' Gaussian profile.
        frequencies: highest harmonic on each ring.

    The squares of each function, on average over its block, add up to 1 over the samples, so that coefficients of equal
    size give kernels of equal energy.
    """
    radius = np.linalg.norm(points, axis=1)
    irreps, mixing, sampled = [], [], []
    for frequency in range(max(frequencies) + 1):
        harmonics = _harmonics(group.dimension, frequency, points)
        copies = decompose(group, _harmonic_action(group, frequency), len(harmonics), frequency)
        for ring, limit in zip(radii, frequencies, strict=True):
            if frequency > limit:
                continue
            shell = harmonics * np.exp(-0.5 * ((radius - ring) / width) ** 2)
            scaled = [copy.T / np.sqrt(((copy.T @ shell) ** 2).sum() / irrep.size) for irrep, copy in copies]
            irreps += [irrep for irrep, _ in copies]
            mixing.append(np.concatenate(scaled))
            sampled.append(shell)
    mix, shells = scipy.linalg.block_diag(*mixing), np.concatenate(sampled)
    if group.dimension == 2:
        return FilterBank(group, tuple(irreps), mix @ shells)
    degrees = [(len(shell) - 1) // 2 for shell in sampled]
    generators = np.stack([scipy.linalg.block_diag(*(_generator(l, axis) for l in degrees)) for axis in range(3)])
    return TurnableBank(group, tuple(irreps), mix @ shells, mix, shells, generators)


def _generator(degree: int, axis: int) -> FloatArray:
    """Return the generator of turns about a coordinate axis in the SO(3) irrep of one degree, antisymmetric."""
    rotations = space_group("so3")
    step = 0.1  # small enough that the logarithm has one branch
    turn = rotations.element(Rotation.from_rotvec(step * np.eye(3)[axis]).as_matrix())
    logarithm = np.real(scipy.linalg.logm(rotations.irrep((degree,))(turn))) / step
    generator: FloatArray = (logarithm - logarithm.T) / 2
    return generator


def _harmonics(dimension: int, frequency: int, points: FloatArray) -> FloatArray:
    """Circular or spherical harmonics of one frequency at the direction of each point, shape (harmonics, points).

    At the origin, which has no direction, only frequency 0 is non-zero.
    """
    if dimension == 2:
        angle = np.arctan2(points[:, 1], points[:, 0])
        stacked = [np.cos(frequency * angle), np.sin(frequency * angle)] if frequency else [np.ones_like(angle)]
        values: FloatArray = np.stack(stacked)
    else:
        values = spherical_harmonics(frequency, points).T
    if frequency:
        values[:, np.linalg.norm(points, axis=1) < 1e-9] = 0.0
    return values


def spherical_harmonics(degree: int, directions: FloatArray) -> FloatArray:
    """Return the spherical harmonics of one degree, unit vectors, shape (directions, 2 degree + 1).

    They are columns of SO(3) irreps, Y(R n) = ψ(R) Y(n), so their convention cannot differ from that of the irreps. At
    each direction they are the vector that ψ of turns about it leaves alone.

    Args:
        degree: of the irrep ψ.
        directions: of any length, shape (directions, 3); 0 counts as z.
    """
    rotations, about_z = space_group("so3"), space_group("so2")
    irrep = rotations.irrep((degree,))
    turns = [rotations.element(about_z.matrix(h)) for h in about_z.quadrature(degree)[0]]
    projection = np.mean([irrep(turn) for turn in turns], axis=0)  # onto the one vector that they leave alone
    column = np.argmax(np.diag(projection))
    pole = projection[:, column] / np.linalg.norm(projection[:, column])
    return np.stack([irrep(rotations.element(turn)) @ pole for turn in turn_z_to(directions)])


def _harmonic_action(group: SymmetryGroup, frequency: int) -> Callable[[Element], FloatArray]:
    """Return h ↦ the matrix by which ``group`` turns the harmonics of one frequency: an irrep of O(2) or O(3)."""
    if group.dimension == 2:
        whole, parity = plane_group("o2"), min(frequency, 1)
    else:
        whole, parity = space_group("o3"), frequency % 2
    irrep = whole.irrep((parity, frequency))
    return lambda h: np.asarray(irrep(whole.element(group.matrix(h))), dtype=float)
