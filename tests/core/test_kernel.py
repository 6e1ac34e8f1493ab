"""Property tests of P_λ: steerable spaces, the identity, subgroups, the integral, and the basis itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from parteq.core.density import FixedDensity, make_density
from parteq.core.fields import FieldType, Representation, direct_sum, regular
from parteq.core.filters import FilterBank, grid_points, pixel_bank
from parteq.core.groups import Irrep, SymmetryGroup, plane_group
from parteq.core.kernel import PartialKernel
from parteq.core.subgroups import Subgroup
from tests.core.helpers import (
    QUATERNION_GROUP,
    RingFilters,
    each_irrep_once,
    highest_frequency,
    jacobian,
    kernel_of_coefficients,
    multiplicity,
    randomise,
    ring_filters,
    some_subgroups,
    unprojected,
)

LEARNED = pytest.mark.parametrize("degree", ["softmax", "squared"])


def _filters(group: SymmetryGroup) -> RingFilters:
    if group.dimension == 2:
        return ring_filters(group, (0.0, 1.0, 2.0), (0, 2, 3))
    return ring_filters(group, (0.0, 1.0), (0, 2))


def _full_band(representation: Representation, filters: tuple[Irrep, ...]) -> int:
    return highest_frequency(representation.group, representation.irreps, representation.irreps, filters)


def _small(group: SymmetryGroup) -> Representation:
    """Return every irrep once in the plane, the trivial and the largest of frequency 1 in space."""
    if group.dimension == 2:
        return each_irrep_once(group, 1)
    return direct_sum(group, dict.fromkeys([group.irreps(0)[0], max(group.irreps(1), key=lambda irrep: irrep.size)], 1))


# -- 1. uniform λ: the steerable space --------------------------------------------------------------------------------


def test_uniform_density_has_as_many_weights_as_invariants(group: SymmetryGroup, band: int) -> None:
    """Characters count the steerable kernels of each triple of irreps."""
    representation, filters = each_irrep_once(group, band), _filters(group)
    density = make_density(group, "full", band)
    kernel = kernel_of_coefficients(representation, representation, filters.bank.irreps, density)
    counts = {
        (out.id, into.id, filt.id): multiplicity(group, [out, into, filt])
        for out, into, filt in itertools.product(representation.irreps, representation.irreps, set(filters.bank.irreps))
    }
    triples = itertools.product(representation.irreps, representation.irreps, filters.bank.irreps)
    assert kernel.rows == sum(counts[out.id, into.id, filt.id] for out, into, filt in triples)


@pytest.mark.parametrize(
    "quaternionic", [regular(QUATERNION_GROUP), direct_sum(QUATERNION_GROUP, {QUATERNION_GROUP.irreps(0)[4]: 1})]
)
def test_uniform_density_on_quaternionic_irreps(quaternionic: Representation) -> None:
    bank = pixel_bank(QUATERNION_GROUP, grid_points(3, 2))
    assert bank is not None
    kernel = kernel_of_coefficients(quaternionic, quaternionic, bank.irreps, make_density(QUATERNION_GROUP, "full", 0))
    expected = sum(
        multiplicity(QUATERNION_GROUP, list(triple))
        for triple in itertools.product(quaternionic.irreps, quaternionic.irreps, bank.irreps)
    )
    assert kernel.rows == expected == np.linalg.matrix_rank(jacobian(kernel), tol=1e-8)


# -- 2. δ at the identity, full band: everything ----------------------------------------------------------------------


def test_no_symmetry_is_every_kernel(group: SymmetryGroup) -> None:
    representation, filters = _small(group), _filters(group)
    irreps = filters.bank.irreps[-2:]
    density = make_density(group, "none", _full_band(representation, irreps))
    kernel = kernel_of_coefficients(representation, representation, irreps, density)
    derivative = jacobian(kernel)
    assert derivative.shape[0] == derivative.shape[1]
    np.testing.assert_allclose(derivative.T @ derivative, np.eye(kernel.rows), atol=1e-7)


# -- 3. λ uniform on K: the K-steerable space -------------------------------------------------------------------------


def _chosen(group: SymmetryGroup) -> list[Subgroup]:
    found = some_subgroups(group)
    return found if len(found) <= 5 else [*found[:4], found[-1]]


def _invariants(
    group: SymmetryGroup, representation: Representation, filters: RingFilters, subgroup: Subgroup, band: int
) -> np.ndarray:
    """Null space of W(x) = ρ(k) W(k⁻¹x) ρ(k)⁻¹ over some k that generate K; the filters are turned as functions."""
    elements, _ = subgroup.quadrature(min(band, 6))
    chooser = np.random.default_rng(0)
    if len(elements) > 12:
        elements = [elements[i] for i in chooser.choice(len(elements), 12, replace=False)]
    size = representation.size**2 * len(filters.bank.values)
    constraint = np.zeros((size, size))
    for k in elements:
        moved = filters.at(filters.points @ group.matrix(k))  # Y(k⁻¹x)
        turned = np.linalg.lstsq(filters.bank.values.T, moved.T, rcond=None)[0]
        rho = representation(k)
        gap = np.kron(np.kron(rho, rho), turned) - np.eye(size)
        constraint += gap.T @ gap
    values, vectors = np.linalg.eigh(constraint)
    return vectors[:, values < 1e-6]


def test_uniform_on_a_subgroup_is_what_the_subgroup_leaves_alone(group: SymmetryGroup) -> None:
    representation = _small(group)
    filters = ring_filters(group, (0.0, 1.0), (0, 2))
    band = _full_band(representation, filters.bank.irreps)
    for subgroup in _chosen(group):
        density = FixedDensity(group, band, subgroup.quadrature(band))
        kernel = kernel_of_coefficients(representation, representation, filters.bank.irreps, density)
        derivative = jacobian(kernel)
        expected = _invariants(group, representation, filters, subgroup, band)
        assert kernel.rows == expected.shape[1], f"{subgroup.name} of {group}"
        np.testing.assert_allclose(expected @ (expected.T @ derivative), derivative, atol=1e-6)


# -- 4. P_λ W is the integral -----------------------------------------------------------------------------------------


def _check_integral(
    kernel: PartialKernel, values: np.ndarray, moved: list[np.ndarray], elements: list, weights: np.ndarray
) -> None:
    """Compare a kernel, given by filter coefficients, with Σ_q w_q λ_q ρ_out(h_q) W(h_q⁻¹x) ρ_in(h_q)⁻¹.

    ``values`` are the filters on points, ``moved`` those at h_q⁻¹x.
    """
    rho_out, rho_in = kernel.out_type.representation, kernel.in_type.representation
    with torch.no_grad():
        density = kernel.density.density_at(elements).numpy() * weights
        projected = kernel().numpy() @ values
    unconstrained = unprojected(kernel)
    integral = np.zeros_like(projected)
    for amount, element, turned in zip(density, elements, moved, strict=True):
        integral += amount * np.einsum("ab,bcx,dc->adx", rho_out(element), unconstrained @ turned, rho_in(element))
    scale = np.abs(integral).max()
    assert scale > 1e-3
    np.testing.assert_allclose(projected, integral, atol=5e-6 * max(scale, 1.0))


def _dense(group: SymmetryGroup, band: int) -> tuple[list, np.ndarray]:
    if not group.continuous:
        return group.quadrature(0)
    if group.name in ("SO(3)", "O(3)"):
        return group.quadrature(max(4 * (band + 1) + 1, 18))
    turns = [group.rotation(2 * np.pi * (i + 0.5) / 72) for i in range(72)]
    if not group.flip:
        return turns, np.full(72, 1 / 72)
    flip = group.rotation(0.3, flipped=True)
    return [*turns, *(turn @ flip for turn in turns)], np.full(144, 1 / 144)


@LEARNED
def test_the_projection_is_the_integral(group: SymmetryGroup, band: int, degree: str, rng: torch.Generator) -> None:
    out, into = each_irrep_once(group, band), _small(group)
    filters = ring_filters(group, (0.0, 1.0), (0, 2))
    density = make_density(group, degree, band)
    randomise(density, rng, 0.15)
    kernel = kernel_of_coefficients(out, into, filters.bank.irreps, density)
    elements, weights = _dense(group, band)
    points = filters.points[:4]
    moved = [filters.at(points @ group.matrix(h)) for h in elements]
    _check_integral(kernel, filters.at(points), moved, elements, weights)


@LEARNED
@pytest.mark.parametrize("name", ["c4", "d1", "d4"])
def test_the_projection_on_pixels_is_the_sum(name: str, degree: str, rng: torch.Generator) -> None:
    group = plane_group(name)
    _check_pixels(group, degree, rng)


@LEARNED
def test_the_projection_on_quaternionic_fields_is_the_sum(degree: str, rng: torch.Generator) -> None:
    _check_pixels(QUATERNION_GROUP, degree, rng)


def _check_pixels(group: SymmetryGroup, degree: str, rng: torch.Generator) -> None:
    points = grid_points(3, 2)
    bank = pixel_bank(group, points)
    assert bank is not None
    density = make_density(group, degree, 0)
    randomise(density, rng)
    kernel = kernel_of_coefficients(regular(group), regular(group), bank.irreps, density)
    elements, weights = group.quadrature(0)
    moved = []
    for h in elements:
        source = np.linalg.norm((points @ group.matrix(h))[:, None] - points[None], axis=-1).argmin(axis=1)
        moved.append(bank.values[:, source])
    _check_integral(kernel, bank.values, moved, elements, weights)


# -- 9. the basis is one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", ["full", "none", "softmax"])
def test_weights_are_coordinates_in_an_orthonormal_basis(group: SymmetryGroup, band: int, degree: str) -> None:
    representation = each_irrep_once(group, band)
    filters = ring_filters(group, (0.0, 1.0), (0, 1))
    kernel = kernel_of_coefficients(
        representation, representation, filters.bank.irreps, make_density(group, degree, band)
    )
    if degree == "softmax":
        kernel.density = make_density(group, "none", band)  # W itself
    derivative = jacobian(kernel)
    np.testing.assert_allclose(derivative.T @ derivative, np.eye(kernel.rows), atol=1e-7)


# -- sampling, fields, memory -----------------------------------------------------------------------------------------


def test_a_sampled_kernel_is_its_coefficients_times_the_filters(group: SymmetryGroup, rng: torch.Generator) -> None:
    representation = each_irrep_once(group, 1)
    bank = ring_filters(group, (0.0, 1.0), (0, 2)).bank
    density = make_density(group, "softmax", 1)
    randomise(density, rng)
    coefficients = kernel_of_coefficients(representation, representation, bank.irreps, density)
    sampled = PartialKernel(FieldType(representation, 3), FieldType(representation, 2), bank, density)
    shown = sampled().detach()
    assert shown.shape == (2 * representation.size, 3 * representation.size, bank.values.shape[1])
    for out, into in itertools.product(range(2), range(3)):
        with torch.no_grad():
            coefficients.weight.copy_(sampled.weight[:, out : out + 1, into : into + 1])
            expected = coefficients().numpy() @ bank.values
        block = shown.unflatten(1, (3, -1)).unflatten(0, (2, -1))[out, :, into]
        np.testing.assert_allclose(block.numpy(), expected, atol=1e-9)


def test_every_input_can_have_a_density_of_its_own(group: SymmetryGroup, rng: torch.Generator) -> None:
    field = FieldType(each_irrep_once(group, 1), 2)
    densities = [make_density(group, "softmax", 1) for _ in range(3)]
    for density in densities:
        randomise(density, rng)
    kernel = PartialKernel(field, field, ring_filters(group, (0.0, 1.0), (0, 2)).bank, densities[0])
    kernels = torch.vmap(kernel)(torch.stack([density() for density in densities]))
    for mine, density in zip(kernels, densities, strict=True):
        kernel.density = density
        torch.testing.assert_close(mine, kernel())
    with pytest.raises(ValueError, match="not the shape of the coefficients"):
        kernel(torch.ones(len(densities[0]()) + 1))


def test_what_is_fixed_takes_no_other_density() -> None:
    group = plane_group("so2")
    field = FieldType(each_irrep_once(group, 1), 1)
    fixed = make_density(group, "full", 1)
    kernel = PartialKernel(field, field, ring_filters(group, (0.0, 1.0), (0, 2)).bank, fixed)
    with pytest.raises(ValueError, match="not the shape of the coefficients"):
        kernel(make_density(group, "learned", 1)())


def test_change_of_basis_of_the_fields_is_applied(rng: torch.Generator) -> None:
    """Regular fields and their irreps give the same kernel up to the fields' change of basis."""
    group = plane_group("d4")
    rho = regular(group)
    irreps = Representation("irreps", group, rho.irreps, np.eye(8))
    bank = pixel_bank(group, grid_points(3, 2))
    assert bank is not None
    density = make_density(group, "softmax", 0)
    randomise(density, rng)
    in_regular, in_irreps = (PartialKernel(FieldType(r, 1), FieldType(r, 1), bank, density) for r in (rho, irreps))
    in_irreps.load_state_dict(in_regular.state_dict())
    expected = np.einsum("ab,bcx,dc->adx", rho.basis, in_irreps().detach().numpy(), rho.basis)
    np.testing.assert_allclose(in_regular().detach().numpy(), expected, atol=1e-9)


def test_weights_are_drawn_anew_in_the_precision_of_the_layer() -> None:
    torch.set_default_dtype(torch.float32)
    group = plane_group("c4")
    bank = pixel_bank(group, grid_points(3, 2))
    assert bank is not None
    fields = FieldType(regular(group), 2)
    kernel = PartialKernel(fields, fields, bank, make_density(group, "softmax", 0)).double()
    kernel.reset_parameters()
    assert kernel().dtype == torch.float64


@pytest.mark.parametrize("degree", ["full", "softmax"])
def test_memory_does_not_grow_with_the_number_of_fields(group: SymmetryGroup, degree: str) -> None:
    bank = ring_filters(group, (0.0, 1.0), (0, 1)).bank
    representation = _small(group)

    def static(count: int) -> int:
        fields = FieldType(representation, count)
        kernel = PartialKernel(fields, fields, bank, make_density(group, degree, 1))
        return sum(buffer.numel() for buffer in kernel.buffers())

    assert static(1) == static(16)


@pytest.mark.parametrize("degree", ["full", "none", "softmax", "squared"])
def test_outputs_start_with_the_variance_of_he(group: SymmetryGroup, band: int, degree: str) -> None:
    torch.manual_seed(0)
    representation = each_irrep_once(group, 1)
    filters = ring_filters(group, (0.0, 1.0), (0, 1)).bank.irreps
    values = np.eye(sum(irrep.size for irrep in filters))
    bank = FilterBank(group=group, irreps=filters, values=values)
    fields = FieldType(representation, 24)
    kernel = PartialKernel(fields, fields, bank, make_density(group, degree, band))
    energy = kernel().detach().square().sum((1, 2)).view(24, representation.size).mean(0)
    torch.testing.assert_close(energy, torch.full_like(energy, 2.0), rtol=0.35, atol=0)


@pytest.mark.parametrize("degree", ["full", "none", "softmax"])
def test_a_step_of_all_weights_moves_every_kernel_as_far_as_a_plain_one(group: SymmetryGroup, degree: str) -> None:
    """A step of ±1 of every weight, times its rate, moves an entry by 1, root mean square; λ is uniform or fixed."""
    representation, filters = _small(group), _filters(group)
    density = make_density(group, degree, _full_band(representation, filters.bank.irreps))
    kernel = kernel_of_coefficients(representation, representation, filters.bank.irreps, density)
    with torch.no_grad():
        kernel.weight.copy_(torch.where(torch.rand_like(kernel.weight) < 0.5, -1.0, 1.0) * kernel.weight_rate)
        moved = kernel.coefficients().square().mean().sqrt()
    torch.testing.assert_close(moved, torch.ones_like(moved))
    assert degree != "none" or kernel.weight_rate == pytest.approx(1)


def test_a_band_below_the_product_of_two_fields_gives_an_empty_triple() -> None:
    """Frequency 2 → 0 on frequency 0 filters reaches no irrep of a density with band 1: no weights, not an error."""
    group = plane_group("so2")
    low, high = direct_sum(group, {group.irreps(0)[0]: 1}), direct_sum(group, {group.irreps(2)[2]: 1})
    for degree in ("softmax", "full", "none"):
        kernel = kernel_of_coefficients(low, high, group.irreps(0)[:1], make_density(group, degree, 1))
        assert kernel.rows == 0
        assert not kernel().any()


def test_fields_of_different_groups_are_refused() -> None:
    c4, d4 = (FieldType(regular(plane_group(name)), 2) for name in ("c4", "d4"))
    bank = pixel_bank(plane_group("c4"), grid_points(3, 2))
    assert bank is not None
    with pytest.raises(ValueError, match="groups differ"):
        PartialKernel(c4, d4, bank, make_density(plane_group("c4"), "full", 0))
    with pytest.raises(ValueError, match="3 groups do not divide 2"):
        PartialKernel(c4, c4, bank, make_density(plane_group("c4"), "full", 0), groups=3)
