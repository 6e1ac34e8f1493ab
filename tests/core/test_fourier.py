from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parteq.core.fields import FieldType, band_limited, direct_sum, regular
from parteq.core.fourier import AdaptiveFourierNonlinearity, FourierNonlinearity
from parteq.core.groups import Element, SymmetryGroup, plane_group, space_group
from tests.core.equivariance import (
    check_gradients,
    check_state,
    elements_off_grids,
    equivariance_error,
    features,
    perturbed,
    turned,
)

CONTINUOUS = [
    *[pytest.param(plane_group(name), 3, id=f"plane-{name}") for name in ("so2", "o2")],
    *[pytest.param(space_group(name), 2, id=f"space-{name}") for name in ("so2", "o2", "cone", "so3", "o3")],
]


def holds_functions(group: SymmetryGroup, band: int, count: int = 2) -> FieldType:
    return FieldType(band_limited(group, band), count)


def values_of(type_: FieldType, coefficients: torch.Tensor, element: Element) -> torch.Tensor:
    """f(g) of flat features, summed term by term."""
    total, start, seen = 0.0, 0, {}
    for irrep in type_.representation.irreps:
        column = seen[irrep.id] = seen.get(irrep.id, -1) + 1
        psi = torch.from_numpy(irrep(element)[:, column].astype(float))
        total = total + irrep.size**0.5 * coefficients[..., start : start + irrep.size] @ psi
        start += irrep.size
    return torch.as_tensor(total)


def test_analysis_undoes_synthesis(group: SymmetryGroup, band: int) -> None:
    layer = FourierNonlinearity(holds_functions(group, band), oversampling=1)
    identity = torch.eye(layer.in_type.representation.size)
    torch.testing.assert_close(layer.analysis @ layer.synthesis, identity, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["c5", "o2"])
def test_coefficients_turn_as_functions_do(name: str) -> None:
    type_ = holds_functions(plane_group(name), 2, 1)
    coefficients = features(type_, ())
    for h in elements_off_grids(type_.group):
        moved = coefficients @ torch.from_numpy(type_.representation(h)).T
        for g in elements_off_grids(type_.group, seed=1):
            torch.testing.assert_close(values_of(type_, moved, g), values_of(type_, coefficients, ~h @ g))


def test_exact_on_finite_groups(group: SymmetryGroup) -> None:
    if group.continuous:
        group = plane_group("c3")
    layer = FourierNonlinearity(holds_functions(group, 0))
    assert equivariance_error(layer, features(layer.in_type)) < 1e-12


def test_agrees_with_regular_fields_on_finite_groups() -> None:
    """In its own basis the regular representation holds the same functions, sampled at the elements."""
    type_ = holds_functions(plane_group("d4"), 0, 1)
    coefficients = features(type_, ())
    samples = torch.stack([values_of(type_, coefficients, g) for g in type_.group.algebra.elements], -1)
    after = FourierNonlinearity(type_)(coefficients)
    result = torch.stack([values_of(type_, after, g) for g in type_.group.algebra.elements], -1)
    torch.testing.assert_close(result, samples.relu())


@pytest.mark.parametrize(("turning", "limit"), CONTINUOUS)
@pytest.mark.parametrize("function", ["relu", "elu"])
def test_error_falls_with_oversampling(turning: SymmetryGroup, limit: int, function: str) -> None:
    type_ = holds_functions(turning, min(limit, 2))
    values = features(type_)
    coarse, middle, fine = (equivariance_error(FourierNonlinearity(type_, function, s), values) for s in (1, 2, 4))
    assert fine < middle < coarse < 0.6
    # A kink has coefficients that fall as k⁻²; the angles grow from 8 to 20, so the error falls to about 0.16.
    assert fine < 0.2 * coarse


@pytest.mark.parametrize("group_of_turns", [plane_group("so2"), plane_group("o2"), space_group("cone")], ids=str)
@pytest.mark.parametrize("oversampling", [1.0, 1.3, 2.0])
def test_quarter_turns_and_flips_are_exact_on_any_grid(group_of_turns: SymmetryGroup, oversampling: float) -> None:
    type_ = holds_functions(group_of_turns, 2)
    layer, values = FourierNonlinearity(type_, oversampling=oversampling), features(type_)
    for flipped in (False, True) if group_of_turns.flip else (False,):
        h = group_of_turns.rotation(torch.pi / 2, flipped)
        torch.testing.assert_close(layer(turned(values, type_, h)), turned(layer(values), type_, h))


@pytest.mark.parametrize(("turning", "limit"), CONTINUOUS)
@pytest.mark.parametrize("function", ["relu", "silu"])
def test_a_turning_grid_is_equivariant_to_rounding(turning: SymmetryGroup, limit: int, function: str) -> None:
    torch.manual_seed(0)
    layer = AdaptiveFourierNonlinearity(holds_functions(turning, limit), function)
    values = features(layer.in_type)
    assert equivariance_error(layer.fixed, values) > 1e-2  # the same grid, standing still
    assert equivariance_error(layer, values) < 1e-10


@given(st.integers(1, 3), st.sampled_from([(), (4,), (2, 3), (2, 1, 3)]), st.floats(1e-6, 1e6), st.integers(0, 10**6))
@settings(max_examples=30)
def test_a_turning_grid_at_any_size(count: int, grid: tuple[int, ...], scale: float, seed: int) -> None:
    for group in (plane_group("o2"), space_group("so3")):
        layer = perturbed(AdaptiveFourierNonlinearity(holds_functions(group, 1, count)), seed)
        assert equivariance_error(layer, scale * features(layer.in_type, grid, seed=seed)) < 1e-9


def test_frames_are_irreps_of_the_group() -> None:
    """ψ_l(g) made from ψ₁(g) is escnn's ψ_l at the same element."""
    for group in (plane_group("so2"), space_group("so3")):
        layer = AdaptiveFourierNonlinearity(holds_functions(group, 3, 1))
        for h in elements_off_grids(group):
            first, second, third = layer._turns(torch.from_numpy(group.algebra.irrep(1)(h))[None, None])
            for frequency, turn in ((1, first), (2, second), (3, third)):
                torch.testing.assert_close(turn[0, 0], torch.from_numpy(group.algebra.irrep(frequency)(h)))


def test_natural_parity_alone_suffices_for_inversion() -> None:
    """Scalar images give no axial vectors and no pseudo-scalars at the first layer."""
    group = space_group("o3")
    layer = AdaptiveFourierNonlinearity(holds_functions(group, 2))
    natural = [(-1) ** irrep.id[0] == (-1) ** irrep.id[1] for irrep in layer.in_type.representation.irreps]
    sizes = torch.tensor([irrep.size for irrep in layer.in_type.representation.irreps])
    mask = torch.tensor(natural).repeat_interleave(sizes).repeat(2).to(torch.float64)
    assert equivariance_error(layer, features(layer.in_type) * mask[:, None, None]) < 1e-10


@pytest.mark.parametrize(("turning", "limit"), CONTINUOUS)
def test_fine_grids_agree_turned_or_not(turning: SymmetryGroup, limit: int) -> None:
    type_ = holds_functions(turning, 1)
    layer = AdaptiveFourierNonlinearity(type_, "silu", oversampling=6)
    values = 0.5 * features(type_)
    torch.testing.assert_close(layer(values), layer.fixed(values), atol=3e-3, rtol=0)


@pytest.mark.parametrize("kind", [FourierNonlinearity, AdaptiveFourierNonlinearity])
@pytest.mark.parametrize(("turning", "limit"), CONTINUOUS)
def test_gradients_are_finite(kind: type, turning: SymmetryGroup, limit: int) -> None:
    layer = kind(holds_functions(turning, limit))
    values = features(layer.in_type)
    check_gradients(layer, values)
    check_gradients(layer, torch.zeros_like(values))
    check_gradients(layer, 1e-30 * values)
    vectorless = values.clone().view(2, 2, -1, 3, 2)
    one = turning.frequency
    irreps, offsets = layer.in_type.representation.irreps, layer.in_type.representation.irrep_offsets
    vectors = [(irrep, start) for irrep, start in zip(irreps, offsets, strict=False) if one(irrep) == 1]
    for irrep, start in vectors:
        vectorless[:, :, start : start + irrep.size] = 0
    check_gradients(layer, vectorless.flatten(1, 2))
    parallel = values.clone().view(2, 2, -1, 3, 2)
    for irrep, start in vectors:
        parallel[:, :, start : start + irrep.size] = torch.arange(irrep.size)[:, None, None].double()
    check_gradients(layer, parallel.flatten(1, 2))


def test_in_single_precision() -> None:
    torch.set_default_dtype(torch.float32)
    layer = AdaptiveFourierNonlinearity(holds_functions(space_group("so3"), 2))
    assert equivariance_error(layer, features(layer.in_type)) < 1e-4
    check_gradients(layer, 1e-18 * features(layer.in_type))


def test_the_directions_are_learned() -> None:
    torch.manual_seed(0)
    for group in (plane_group("o2"), space_group("o3")):
        layer = AdaptiveFourierNonlinearity(holds_functions(group, 1))
        layer(features(layer.in_type)).pow(3).sum().backward()
        assert (layer.directions.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("kind", [FourierNonlinearity, AdaptiveFourierNonlinearity])
def test_refusals(kind: type) -> None:
    group = plane_group("o2")
    with pytest.raises(ValueError, match="holds no functions"):
        kind(FieldType(direct_sum(group, {group.irreps(1)[2]: 3}), 1))
    with pytest.raises(ValueError, match="holds no functions"):
        kind(FieldType(regular(plane_group("c4")), 1))
    with pytest.raises(ValueError, match="below 1"):
        kind(holds_functions(group, 1), oversampling=0.5)
    with pytest.raises(ValueError, match="unknown function"):
        kind(holds_functions(group, 1), "sine")


def test_nothing_to_turn_is_refused() -> None:
    for type_ in (holds_functions(plane_group("d4"), 0), holds_functions(plane_group("so2"), 0)):
        with pytest.raises(ValueError, match="use FourierNonlinearity"):
            AdaptiveFourierNonlinearity(type_)


@pytest.mark.parametrize("kind", [FourierNonlinearity, AdaptiveFourierNonlinearity])
def test_state_and_copies(kind: type) -> None:
    type_ = holds_functions(space_group("so3"), 2)
    check_state(kind(type_), kind(type_), features(type_))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FourierNonlinearity, AdaptiveFourierNonlinearity])
def test_compiles_without_a_graph_break(kind: type) -> None:
    layer = kind(holds_functions(space_group("o3"), 2))
    values = features(layer.in_type)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(values), layer(values))
