from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from parteq.core.density import (
    Density,
    FixedDensity,
    LearnedDensity,
    SoftmaxDensity,
    SquaredDensity,
    make_density,
)
from parteq.core.groups import SymmetryGroup, plane_group, space_group
from parteq.core.subgroups import subgroups
from tests.core.helpers import QUATERNION_GROUP, irreps_on_quadrature, randomise, some_elements, some_subgroups

LEARNED = pytest.mark.parametrize("degree", ["softmax", "squared"])


def _fine(group: SymmetryGroup, band: int) -> int:
    """Return the frequency of a quadrature finer than that of the densities, which stops at 6 (band + 1) there."""
    return 9 * (band + 1) if group.name in ("SO(3)", "O(3)") else 97


def _flat(irreps: list[np.ndarray]) -> torch.Tensor:
    """Lay irreps out as densities take them."""
    return torch.from_numpy(np.concatenate([irrep.reshape(len(irrep), -1) for irrep in irreps], axis=1))


def _pickled(density: Density) -> Density:
    twin = pickle.loads(pickle.dumps(density))
    assert isinstance(twin, Density)
    return twin


def _random(group: SymmetryGroup, degree: str, band: int, seed: int = 0) -> LearnedDensity:
    density = make_density(group, degree, band)
    assert isinstance(density, LearnedDensity)
    randomise(density, torch.Generator().manual_seed(seed), scale=0.15)
    return density


def _check_learned(group: SymmetryGroup, degree: str, band: int) -> None:
    """A learned density is non-negative and normalised, and its numbers are those of a finer quadrature."""
    density = _random(group, degree, band).requires_grad_(False)
    weights, irreps = irreps_on_quadrature(group, band, _fine(group, band))
    values = density.log_density(_flat(irreps)).exp().numpy()
    assert values.min() >= 0
    assert weights @ values == pytest.approx(1, abs=1e-5)
    for block, irrep in zip(density.coefficients(), irreps, strict=True):
        np.testing.assert_allclose(block.numpy(), np.einsum("q,q,qab->ab", weights, values, irrep), atol=1e-5)
    divergence = float(density.divergence_from_uniform())
    assert divergence >= -1e-12
    # λ log λ of a squared density has a kink where a vanishes, so that its integral converges slowly.
    tolerance = 1e-5 if degree == "softmax" else 2e-2
    assert divergence == pytest.approx(float(weights @ (values * np.log(values.clip(1e-300)))), abs=tolerance)
    assert float(density.entropy()) == -divergence


@LEARNED
def test_learned_densities_agree_with_a_finer_quadrature(group: SymmetryGroup, band: int, degree: str) -> None:
    _check_learned(group, degree, band)


@LEARNED
def test_a_density_is_the_same_function_on_and_off_its_quadrature(group: SymmetryGroup, band: int, degree: str) -> None:
    density = _random(group, degree, band).requires_grad_(False)
    some = list(range(0, len(density.weights), 1 + len(density.weights) // 7))
    torch.testing.assert_close(density.density_at([density.element(i) for i in some]), density.density()[some])


@LEARNED
def test_densities_on_quaternionic_irreps(degree: str) -> None:
    _check_learned(QUATERNION_GROUP, degree, 0)


@LEARNED
def test_densities_start_uniform(group: SymmetryGroup, band: int, degree: str) -> None:
    density, uniform = make_density(group, degree, band), make_density(group, "full", band)
    assert isinstance(density, LearnedDensity)
    density.requires_grad_(False)
    torch.testing.assert_close(density(), uniform(), atol=1e-9, rtol=0)
    torch.testing.assert_close(density.density(), torch.ones_like(density.weights))
    assert float(density.divergence_from_uniform().detach()) == pytest.approx(0, abs=1e-9)


@LEARNED
def test_every_freedom_of_the_density_gets_a_gradient(group: SymmetryGroup, band: int, degree: str) -> None:
    density = _random(group, degree, band if degree == "softmax" else max(band, 2))
    target = torch.rand(len(density.weights), generator=torch.Generator().manual_seed(1))
    (parameter,) = density.parameters()
    (gradient,) = torch.autograd.grad(density.density() @ (target * density.weights), parameter)
    assert torch.isfinite(gradient).all()
    if group.name != "C1":
        assert float(gradient.abs().max()) > 1e-4


def test_a_squared_density_is_band_limited(group: SymmetryGroup, band: int) -> None:
    band = max(band, 2)
    density = _random(group, "squared", band)
    weights, irreps = irreps_on_quadrature(group, band + 2, 2 * band + 2)
    lower = _flat(irreps[: len(group.irreps(band))])
    values = density.log_density(lower).exp().detach().numpy()
    for irrep, block in zip(group.irreps(band + 2), irreps, strict=True):
        if group.frequency(irrep) > 2 * (band // 2):
            np.testing.assert_allclose(np.einsum("q,q,qab->ab", weights, values, block), 0, atol=1e-9)


@pytest.mark.parametrize("name", ["so2", "o2"])
@pytest.mark.parametrize("band", [1, 2, 4])
def test_a_peaked_softmax_density_is_integrated_well(name: str, band: int) -> None:
    """As peaked as learned densities get: ten times the uniform one, and more."""
    group = plane_group(name)
    density = SoftmaxDensity(group, band)
    weights, irreps = irreps_on_quadrature(group, band, 999)
    # Logits ∝ ψ(identity): a peak at the identity, sharper the higher the band.
    with torch.no_grad():
        density.logits.copy_(torch.cat([torch.eye(irrep.size).flatten() for irrep in group.irreps(band)]))
        values = density.log_density(_flat(irreps)).exp().numpy()
        assert weights @ values == pytest.approx(1, abs=1e-3)
        for block, irrep in zip(density.coefficients(), irreps, strict=True):
            np.testing.assert_allclose(block.numpy(), np.einsum("q,q,qab->ab", weights, values, irrep), atol=1e-3)
        expected = float(weights @ (values * np.log(values)))
        assert float(density.divergence_from_uniform()) == pytest.approx(expected, abs=1e-3 * max(expected, 1))


@LEARNED
def test_divergence_between_densities(group: SymmetryGroup, band: int, degree: str) -> None:
    first, second = (_random(group, degree, band, seed).requires_grad_(False) for seed in (0, 1))
    assert float(first.divergence(first)) == pytest.approx(0, abs=1e-12)
    assert float(first.divergence(second)) >= -1e-12
    uniform = make_density(group, degree, band)
    assert isinstance(uniform, LearnedDensity)
    uniform.requires_grad_(False)
    assert float(first.divergence(uniform)) == pytest.approx(float(first.divergence_from_uniform()), abs=1e-9)


def test_a_density_inherits_from_one_on_the_same_group_and_band() -> None:
    coarser = SoftmaxDensity(plane_group("so2"), 1, oversampling=18)  # 36 points, as many as of band 2
    for parent in (SoftmaxDensity(space_group("so2"), 2), SoftmaxDensity(plane_group("so2"), 3), coarser):
        with pytest.raises(ValueError, match="same group"):
            SoftmaxDensity(plane_group("so2"), 2, parent=parent)


@LEARNED
@pytest.mark.parametrize("name", ["so2", "o2"])
@pytest.mark.parametrize("band", [1, 2, 3])
def test_every_coefficient_of_a_density_can_be_learned(band: int, name: str, degree: str) -> None:
    """Each has a slope somewhere; at a = 1 itself a square has none of the second order."""
    density = _random(plane_group(name), degree, band)
    for number, block in enumerate(density.coefficients()[1:]):
        (gradient,) = torch.autograd.grad(block.square().sum(), list(density.parameters()), retain_graph=True)
        assert gradient.abs().max() > 1e-4, number


def test_what_has_no_mass_is_no_density() -> None:
    group = plane_group("so2")
    with pytest.raises(ValueError, match="average over no subgroup"):
        FixedDensity(group, 1, ([group.algebra.identity], np.zeros(1)))


def test_densities_on_different_groups_or_bands_have_no_divergence() -> None:
    density = SoftmaxDensity(plane_group("so2"), 2)
    for other in (SoftmaxDensity(space_group("so2"), 2), SoftmaxDensity(plane_group("so2"), 3)):
        with pytest.raises(ValueError, match="cannot be compared"):
            density.divergence(other)


@LEARNED
@pytest.mark.only(lambda group: group.name not in ("SO(3)", "O(3)"))  # else there are too many pairs of points
def test_autocorrelation_is_that_of_the_values(group: SymmetryGroup, band: int, degree: str) -> None:
    density = _random(group, degree, band).requires_grad_(False)
    weights, irreps = irreps_on_quadrature(group, band, max(23, 12 * (band + 1)))
    values = density.log_density(_flat(irreps)).exp().numpy()
    products = [np.einsum("pij,qjk->pqik", irrep, irrep).reshape(-1, *irrep.shape[1:]) for irrep in irreps]
    shifted = density.log_density(_flat(products)).exp().numpy().reshape(len(weights), -1)  # λ(hg)
    correlation = shifted @ (weights * values)
    blocks = density.layout.split(density.autocorrelation())
    for block, irrep in zip(blocks, irreps, strict=True):
        expected = np.einsum("q,q,qab->ab", weights, correlation, irrep)
        np.testing.assert_allclose(block.numpy(), expected, atol=1e-5)


@LEARNED
def test_autocorrelation_has_the_squares_of_the_coefficients(group: SymmetryGroup, band: int, degree: str) -> None:
    """∫∫ λ(g) λ(hg) ρ(h) dg dh = ∫∫ λ(g) λ(k) ρ(k) ρ(g)ᵀ dg dk."""
    density = _random(group, degree, band).requires_grad_(False)
    weights, irreps = irreps_on_quadrature(group, band, _fine(group, band))
    values = density.log_density(_flat(irreps)).exp().numpy()
    for block, irrep in zip(density.layout.split(density.autocorrelation()), irreps, strict=True):
        coefficients = np.einsum("q,q,qab->ab", weights, values, irrep)
        np.testing.assert_allclose(block.numpy(), coefficients @ coefficients.T, atol=1e-5)


@LEARNED
def test_a_density_keeps_a_subgroup(group: SymmetryGroup, band: int, degree: str) -> None:
    whole = subgroups(group)[0]
    for subgroup in some_subgroups(group):
        density = _random(group, degree, band)
        density.keep(subgroup)
        elements = some_elements(group)
        values = density.density_at(elements)
        for k in subgroup.quadrature(band)[0][:5]:
            torch.testing.assert_close(density.density_at([k @ h for h in elements]), values, atol=1e-6, rtol=1e-6)
        assert float(density.mass().sum().detach()) == pytest.approx(1)
        kept = density().clone()
        density.keep(subgroup)
        torch.testing.assert_close(density(), kept, atol=1e-7, rtol=0)
        if subgroup.name == whole.name:
            assert float(density.divergence_from_uniform().detach()) == pytest.approx(0, abs=1e-9)
        if subgroup.kind == "identity only":
            torch.testing.assert_close(kept, _random(group, degree, band)(), atol=1e-9, rtol=0)


def test_samples_follow_the_density() -> None:
    density = _random(plane_group("d4"), "softmax", 0)
    drawn = density.sample(4000, torch.Generator().manual_seed(0))
    again = density.sample(4000, torch.Generator().manual_seed(0))
    assert drawn == again
    counts = np.array([sum(h == density.element(i) for h in drawn) for i in range(8)]) / 4000
    np.testing.assert_allclose(counts, (density.weights * density.density()).detach(), atol=0.04)


def test_fixed_densities_project_onto_what_a_subgroup_leaves_alone(group: SymmetryGroup, band: int) -> None:
    for subgroup in some_subgroups(group):
        density = FixedDensity(group, band, subgroup.quadrature(band))
        assert not list(density.parameters())
        for irrep, block in zip(group.irreps(band), density.coefficients(), strict=True):
            torch.testing.assert_close(block @ block, block, atol=1e-8, rtol=0)
            for h in subgroup.quadrature(band)[0][:5]:
                torch.testing.assert_close(
                    torch.as_tensor(irrep(h), dtype=block.dtype) @ block, block, atol=1e-6, rtol=0
                )


@pytest.mark.parametrize(("count", "weights"), [(2, [0.5, 0.5]), (4, [0.4, 0.2, 0.2, 0.2]), (1, [3.0])])
def test_what_is_no_subgroup_is_refused(count: int, weights: list[float]) -> None:
    group = plane_group("c4")
    with pytest.raises(ValueError, match="no subgroup"):
        FixedDensity(group, 0, (list(group.algebra.elements)[:count], np.array(weights)))


def test_full_and_none(group: SymmetryGroup, band: int) -> None:
    full, none = make_density(group, "full", band), make_density(group, "none", band)
    for irrep, whole, nothing in zip(group.irreps(band), full.coefficients(), none.coefficients(), strict=True):
        torch.testing.assert_close(whole, torch.full_like(whole, float(irrep.is_trivial())))
        torch.testing.assert_close(nothing, torch.eye(irrep.size), atol=1e-9, rtol=0)


def test_degrees_by_name() -> None:
    group = plane_group("c4")
    assert type(make_density(group, "learned", 0)) is SoftmaxDensity
    assert type(make_density(group, "squared", 0)) is SquaredDensity
    with pytest.raises(ValueError, match="unknown degree 'most'"):
        make_density(group, "most", 0)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, _pickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("degree", ["softmax", "squared", "full", "none"])
def test_copies_are_equal_and_independent(
    group: SymmetryGroup, band: int, degree: str, duplicate: Callable[[Density], Density]
) -> None:
    density = make_density(group, degree, band)
    randomise(density, torch.Generator().manual_seed(0))
    before = density().detach().clone()
    twin = duplicate(density)
    assert twin.group is group
    torch.testing.assert_close(twin(), before)
    randomise(twin, torch.Generator().manual_seed(1))
    torch.testing.assert_close(density(), before)


def test_state_holds_only_what_is_learned() -> None:
    group = plane_group("o2")
    assert list(make_density(group, "softmax", 2).state_dict()) == ["logits"]
    assert list(make_density(group, "squared", 2).state_dict()) == ["amplitudes"]
    assert not make_density(group, "full", 2).state_dict()


@LEARNED
def test_small_singular_values_settle_at_uniform_and_large_ones_stay(degree):
    group = space_group("so3")
    density = _random(group, degree, 4 if degree == "squared" else 2).requires_grad_(False)
    blocks = density.layout.split(next(density.parameters()).clone())
    density.settle(0.0)
    for block, kept in zip(blocks, density.layout.split(next(density.parameters())), strict=True):
        torch.testing.assert_close(kept, block)
    reach = float(torch.linalg.svdvals(blocks[1])[:2].mean()) / 3**0.5
    density.settle(reach)
    left, values, right = torch.linalg.svd(blocks[1])
    largest = values[0] * torch.outer(left[:, 0], right[0])
    torch.testing.assert_close(density.layout.split(next(density.parameters()))[1], largest)
    density.settle(100.0)
    torch.testing.assert_close(density(), density.uniform)
