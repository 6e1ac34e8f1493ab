"""Independent constructions that the core is compared with: filters in closed form, brute-force integrals, Q8."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from parteq.core.density import Density, SoftmaxDensity, make_density
from parteq.core.fields import FieldType, Representation, direct_sum
from parteq.core.filters import FilterBank, grid_points, harmonic_bank
from parteq.core.groups import Element, Irrep, SymmetryGroup
from parteq.core.kernel import PartialKernel
from parteq.core.subgroups import Subgroup, axial_subgroup, dihedral_subgroup, subgroups

__all__ = [
    "QUATERNION_GROUP",
    "RingFilters",
    "concentrate",
    "each_irrep_once",
    "grid_elements",
    "highest_frequency",
    "irreps_on_quadrature",
    "jacobian",
    "kernel_of_coefficients",
    "multiplicity",
    "randomise",
    "ring_filters",
    "some_elements",
    "transform",
    "unprojected",
]


def each_irrep_once(group: SymmetryGroup, band: int) -> Representation:
    """Return the direct sum of all irreps up to ``band``."""
    return direct_sum(group, dict.fromkeys(group.irreps(band), 1))


def highest_frequency(group: SymmetryGroup, *irreps: tuple[Irrep, ...]) -> int:
    """Return the highest frequency in a product of direct sums of irreps."""
    return sum(max(group.frequency(irrep) for irrep in side) for side in irreps)


def some_elements(group: SymmetryGroup, count: int = 6, seed: int = 0) -> list[Element]:
    """Return a few elements of a group; of a small finite group all of them."""
    if not group.continuous and group.algebra.order() <= count:
        return list(group.algebra.elements)
    chooser = np.random.default_rng(seed)
    elements, _ = group.quadrature(6)
    picked = [elements[i] for i in chooser.choice(len(elements), min(count, len(elements)), replace=False)]
    # Products of two reach off the symmetric positions of the quadrature.
    return picked + [a @ b for a, b in itertools.pairwise(picked)]


@cache
def some_subgroups(group: SymmetryGroup) -> list[Subgroup]:
    """The whole group, of a continuous one some that can stand anywhere, every third of the others, the identity."""
    found = subgroups(group)
    placed = []
    if group.continuous and group.flip:
        placed = [dihedral_subgroup(group, order, 20.0) for order in (1, 3)]
    elif group.continuous and group.dimension == 3 and not group.about_axis:
        placed = [axial_subgroup(group, (1.0, 2.0, 2.0), kind) for kind in ("so2", "d2")]
    return [found[0], *placed, *found[1:-1:3], *found[1:][-1:]]


def irreps_on_quadrature(group: SymmetryGroup, band: int, limit: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the weights of the Haar quadrature that is exact to ``limit`` and each irrep on it, (points, d, d).

    Irreps are multiplied factor by factor: evaluating them one by one is slow in space.
    """
    weights, values = np.ones(1), [np.eye(irrep.size)[None] for irrep in group.irreps(band)]
    for elements, more in group.factors(limit):
        weights = np.multiply.outer(weights, more).reshape(-1)
        for i, irrep in enumerate(group.irreps(band)):
            factor = np.stack([irrep(h) for h in elements]).astype(float)
            values[i] = np.einsum("pij,qjk->pqik", values[i], factor).reshape(-1, irrep.size, irrep.size)
    return weights, values


def multiplicity(group: SymmetryGroup, irreps: list[Irrep]) -> int:
    """Return how often the trivial irrep is in the product of ``irreps``, by characters."""
    highest = max(group.frequency(irrep) for irrep in irreps)
    weights, values = irreps_on_quadrature(group, highest, len(irreps) * highest)
    order = [irrep.id for irrep in group.irreps(highest)]
    characters = [np.trace(values[order.index(irrep.id)], axis1=1, axis2=2) for irrep in irreps]
    return round(float(weights @ np.prod(characters, axis=0)))


def randomise(density: Density, generator: torch.Generator, scale: float = 0.3) -> None:
    """Move a learned density away from uniform."""
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def concentrate(density: SoftmaxDensity, elements: Sequence[Element], height: float = 40.0) -> None:
    """Give elements of a finite group equal mass, and the others exp(-height) of it."""
    target = torch.tensor([height * (density.element(i) in elements) for i in range(len(density.weights))])
    with torch.no_grad():
        functions = density.irrep_values * density.basis_scale
        density.logits.copy_(torch.linalg.pinv(functions) @ (target - target.mean()))


# -- filters ----------------------------------------------------------------------------------------------------------


def _closed_form_harmonics(points: np.ndarray, frequency: int) -> np.ndarray:
    """Circular harmonics, or harmonic polynomials on the sphere (to degree 3), of one frequency; any normalisation."""
    radius = np.linalg.norm(points, axis=1)
    safe = np.where(radius > 1e-9, radius, 1.0)
    if points.shape[1] == 2:
        power = ((points[:, 0] + 1j * points[:, 1]) / safe) ** frequency
        values = [power.real, power.imag] if frequency else [np.ones_like(radius)]
    else:
        x, y, z = points.T / safe
        values = {
            0: [np.ones_like(radius)],
            1: [x, y, z],
            2: [x * y, y * z, z * x, x**2 - y**2, 3 * z**2 - 1],
            3: [
                x * y * z,
                z * (x**2 - y**2),
                x * (5 * z**2 - 1),
                y * (5 * z**2 - 1),
                z * (5 * z**2 - 3),
                x * (x**2 - 3 * y**2),
                y * (3 * x**2 - y**2),
            ],
        }[frequency]
    return np.stack(values) * (radius > 1e-9 if frequency else 1.0)


@dataclass(frozen=True)
class RingFilters:
    """A harmonic bank that can be evaluated anywhere, through closed forms it is fitted to on ``points``."""

    bank: FilterBank
    points: np.ndarray
    radii: np.ndarray
    width: float
    frequencies: list[int]
    mixture: np.ndarray
    """The bank in terms of the closed forms."""

    def closed_form(self, points: np.ndarray) -> np.ndarray:
        """Return Gaussian rings times closed-form harmonics, shape (functions, points)."""
        radius = np.linalg.norm(points, axis=1)
        return np.concatenate(
            [
                _closed_form_harmonics(points, frequency) * np.exp(-((radius - ring) ** 2) / (2 * self.width**2))
                for ring, limit in zip(self.radii, self.frequencies, strict=True)
                for frequency in range(limit + 1)
            ]
        )

    def at(self, points: np.ndarray) -> np.ndarray:
        """Return the filters at any points, shape (filters, points)."""
        return self.mixture @ self.closed_form(points)

    @property
    def residual(self) -> float:
        """Return how far the bank is from the span of the closed forms."""
        return float(np.abs(self.at(self.points) - self.bank.values).max())


def ring_filters(
    group: SymmetryGroup, radii: tuple[float, ...] = (0.0, 1.0, 2.0), frequencies: tuple[int, ...] = (0, 2, 3)
) -> RingFilters:
    """Return a small harmonic bank on scattered points."""
    points = 1.3 * np.random.default_rng(1).standard_normal((60, group.dimension))
    bank = harmonic_bank(group, points, np.array(radii), 0.6, list(frequencies))
    filters = RingFilters(bank, points, np.array(radii), 0.6, list(frequencies), np.zeros((0, 0)))
    mixture = np.linalg.lstsq(filters.closed_form(points).T, bank.values.T, rcond=None)[0].T
    return RingFilters(bank, points, filters.radii, filters.width, filters.frequencies, mixture)


# -- kernels ----------------------------------------------------------------------------------------------------------


def kernel_of_coefficients(
    out: Representation, into: Representation, irreps: tuple[Irrep, ...], density: Density
) -> PartialKernel:
    """Return a kernel whose "points" are the filters themselves: its coefficients before anything is sampled."""
    size = sum(irrep.size for irrep in irreps)
    bank = FilterBank(group=out.group, irreps=irreps, values=np.eye(size))
    return PartialKernel(FieldType(into, 1), FieldType(out, 1), bank, density)


def jacobian(kernel: PartialKernel) -> np.ndarray:
    """Return the derivative of a kernel in its weights, shape (numbers in the kernel, rows)."""
    rows = torch.eye(kernel.rows).view(kernel.rows, *kernel.weight.shape)

    def sampled(weight: Tensor) -> Tensor:
        return torch.func.functional_call(kernel, {"weight": weight}, ()).flatten()

    return torch.vmap(sampled)(rows).detach().numpy().T


def unprojected(kernel: PartialKernel) -> np.ndarray:
    """Return the unconstrained kernel W behind a kernel with a learned density: what δ at the identity leaves."""
    density = kernel.density
    kernel.density = make_density(density.group, "none", density.band)
    whole = kernel().detach().numpy()
    kernel.density = density
    return whole


# -- images -----------------------------------------------------------------------------------------------------------


def grid_elements(group: SymmetryGroup) -> list[Element]:
    """Return the elements that map square or cubic grids to themselves."""
    if not group.continuous:
        grid = grid_points(3, group.dimension)
        moved = [grid @ group.matrix(h).T for h in group.algebra.elements]
        return [
            h for h, points in zip(group.algebra.elements, moved, strict=True) if np.allclose(points, np.round(points))
        ]
    if group.dimension == 2 or group.about_axis:
        quarters = [k * np.pi / 2 for k in range(4)]
        return [
            group.rotation(angle, flip) for flip in ([False, True] if group.flip else [False]) for angle in quarters
        ]
    elements = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.eye(3)[list(order)] * signs
            if np.linalg.det(matrix) > 0:
                both = group.name == "O(3)"
                elements += [
                    group.algebra.element((p, matrix) if both else matrix, "MAT") for p in ((0, 1) if both else (0,))
                ]
    return elements


def transform(field_type: FieldType, element: Element, images: Tensor) -> Tensor:
    """Return ρ(g) f(g⁻¹x) for features (batch, channels, *grid) on a square or cubic grid."""
    group, grid = field_type.group, grid_points(images.shape[-1], images.ndim - 2)
    source = np.linalg.norm((grid @ group.matrix(element))[:, None] - grid[None], axis=-1)
    assert source.min(axis=1).max() < 1e-6
    rho = torch.from_numpy(field_type.representation(element))
    moved = images.flatten(2)[..., source.argmin(axis=1)].unflatten(1, (field_type.count, -1))
    return torch.einsum("ab,nkbx->nkax", rho, moved).flatten(1, 2).view(images.shape)


# -- a group with an irrep of quaternionic type -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Quaternion:
    """A unit of the quaternions 1, i, j, k, with a sign."""

    unit: int
    sign: int

    def __matmul__(self, other: _Quaternion) -> _Quaternion:
        table = [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
        signs = [[1, 1, 1, 1], [1, -1, 1, -1], [1, -1, -1, 1], [1, 1, -1, -1]]
        a, b = self.unit, other.unit
        return _Quaternion(table[a][b], self.sign * other.sign * signs[a][b])

    def to(self, parametrisation: str) -> tuple[int, float]:
        """Act on the plane through Q8 → D2: i is half a turn, j flips y."""
        assert parametrisation == "radians"
        return {0: (0, 0.0), 1: (0, np.pi), 2: (1, 0.0), 3: (1, np.pi)}[self.unit]


@dataclass(frozen=True)
class _QuaternionIrrep:
    """An irrep of Q8: four of size 1, which kill the sign, and left multiplication of the quaternions on R⁴."""

    id: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"irrep_{self.id[0]}"

    @property
    def size(self) -> int:
        return 4 if self.id == (4,) else 1

    @property
    def sum_of_squares_constituents(self) -> int:
        return 4 if self.id == (4,) else 1

    def is_trivial(self) -> bool:
        return self.id == (0,)

    def __call__(self, element: _Quaternion) -> np.ndarray:
        if self.size == 1:
            signs = [[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]
            return np.array([[float(signs[self.id[0]][element.unit])]])
        products = [element @ _Quaternion(unit, 1) for unit in range(4)]
        matrix = np.zeros((4, 4))
        for column, product in enumerate(products):
            matrix[product.unit, column] = product.sign
        return matrix


class _QuaternionAlgebra:
    """What :class:`SymmetryGroup` asks of a finite group."""

    continuous = False
    elements = tuple(_Quaternion(unit, sign) for sign in (1, -1) for unit in range(4))
    identity = elements[0]

    def order(self) -> int:
        return len(self.elements)

    def irrep(self, index: int) -> _QuaternionIrrep:
        return _QuaternionIrrep((index,))

    def irreps(self) -> list[_QuaternionIrrep]:
        return [self.irrep(index) for index in range(5)]


QUATERNION_GROUP = SymmetryGroup("Q8", 2, _QuaternionAlgebra(), (1.0, -1.0))
"""The quaternion group of order 8, on the plane as D2."""
