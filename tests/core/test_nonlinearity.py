from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from parteq.core.fields import FieldType, Representation, band_limited, direct_sum, regular, trivial
from parteq.core.groups import SymmetryGroup, plane_group, space_group
from parteq.core.nonlinearity import (
    GatedNonlinearity,
    NormNonlinearity,
    PointwiseNonlinearity,
    pointwise_function,
)
from tests.core.equivariance import check_gradients, check_state, equivariance_error, features, perturbed

FUNCTIONS = ("relu", "elu", "relu6", "silu")
GRIDS = ((), (5,), (3, 2), (2, 3, 2))


def mixed_basis(group: SymmetryGroup, band: int) -> Representation:
    """All irreps up to ``band`` in a random orthogonal basis."""
    rho = band_limited(group, band)
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((rho.size, rho.size)))
    return Representation("mixed", group, rho.irreps, basis)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_pointwise_is_equivariant_on_regular_fields(group: SymmetryGroup, function: str) -> None:
    rho = trivial(group) if group.continuous else regular(group)
    layer = PointwiseNonlinearity(FieldType(rho, 3), function)
    assert equivariance_error(layer, features(layer.in_type)) < 1e-12


def test_pointwise_refuses_what_it_would_break() -> None:
    group = plane_group("d4")
    with pytest.raises(ValueError, match="does not permute"):
        PointwiseNonlinearity(FieldType(band_limited(group, 0), 2))
    with pytest.raises(ValueError, match="unknown function 'tan'"):
        pointwise_function("tan")


def test_pointwise_is_a_plain_layer() -> None:
    layer = PointwiseNonlinearity(FieldType(regular(plane_group("c4")), 2), "silu")
    assert isinstance(layer.plain(), nn.SiLU)
    values = features(layer.in_type)
    torch.testing.assert_close(layer(values), nn.functional.silu(values))


@pytest.mark.parametrize("kind", [GatedNonlinearity, NormNonlinearity])
@pytest.mark.parametrize("make", [band_limited, mixed_basis])
def test_gates_and_norms_are_equivariant(group: SymmetryGroup, band: int, kind: type, make: type) -> None:
    layer = perturbed(kind(FieldType(make(group, band), 3)))
    assert equivariance_error(layer, features(layer.in_type)) < 1e-12


@pytest.mark.parametrize("kind", [GatedNonlinearity, NormNonlinearity])
def test_regular_fields_may_be_gated_too(kind: type) -> None:
    layer = perturbed(kind(FieldType(regular(plane_group("d5")), 2)))
    assert equivariance_error(layer, features(layer.in_type)) < 1e-12


@given(st.integers(1, 3), st.integers(0, 3), st.integers(0, 3), st.sampled_from(GRIDS), st.integers(0, 10**6))
def test_any_multiplicities_and_any_grid(
    count: int, scalars: int, vectors: int, grid: tuple[int, ...], seed: int
) -> None:
    group = space_group("so3")
    if not scalars + vectors:
        scalars = 1
    rho = direct_sum(group, {group.irreps(1)[1]: vectors, group.irreps(0)[0]: scalars})
    for kind in (GatedNonlinearity, NormNonlinearity):
        layer = perturbed(kind(FieldType(rho, count)), seed)
        values = features(layer.in_type, grid, seed=seed)
        assert layer(values).shape == (2, layer.out_type.channels, *grid)
        assert equivariance_error(layer, values + 0.1) < 1e-12


def test_gates_come_after_the_components_of_each_field() -> None:
    group = plane_group("o2")
    layer = GatedNonlinearity(FieldType(band_limited(group, 1), 2), "relu")
    assert layer.in_type.representation.size == layer.out_type.representation.size + 3  # det, and two vectors
    values = torch.zeros(1, 2, 9)
    values[0, 0, :6] = torch.tensor([-1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    values[0, 0, 6:] = torch.tensor([0.0, 100.0, -100.0])
    expected = torch.tensor([0.0, 1.0, 3.0, 4.0, 0.0, 0.0])
    torch.testing.assert_close(layer(values.flatten(1)).view(2, 6)[0], expected)


def test_norm_shortens_by_its_bias() -> None:
    group = plane_group("so2")
    layer = NormNonlinearity(FieldType(band_limited(group, 1), 1), initial_bias=-1.0)
    values = torch.tensor([[1.5, 3.0, 4.0], [-1.0, 0.3, 0.4]])
    torch.testing.assert_close(layer(values), torch.tensor([[0.5, 2.4, 3.2], [0.0, 0.0, 0.0]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1.0])
@pytest.mark.parametrize("kind", [GatedNonlinearity, NormNonlinearity])
def test_gradients_are_finite(kind: type, scale: float) -> None:
    layer = kind(FieldType(band_limited(space_group("o3"), 1), 2))
    for bias in (-0.1, 0.2):
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.fill_(bias)
        check_gradients(layer, scale * features(layer.in_type))


@pytest.mark.parametrize("kind", [GatedNonlinearity, NormNonlinearity])
def test_state_and_copies(kind: type) -> None:
    type_ = FieldType(mixed_basis(plane_group("o2"), 2), 2)
    layer = perturbed(kind(type_))
    check_state(layer, kind(type_), features(layer.in_type))


def test_buffers_follow_the_default_dtype() -> None:
    torch.set_default_dtype(torch.float32)
    layer = NormNonlinearity(FieldType(mixed_basis(plane_group("o2"), 2), 2))
    assert {buffer.dtype for buffer in layer.buffers() if buffer.is_floating_point()} == {torch.float32}
    assert layer(features(layer.in_type)).dtype == torch.float32
    assert copy.deepcopy(layer).double()(features(layer.in_type).double()).dtype == torch.float64


@pytest.mark.slow
@pytest.mark.parametrize("kind", [PointwiseNonlinearity, GatedNonlinearity, NormNonlinearity])
def test_compiles_without_a_graph_break(kind: type) -> None:
    layer = kind(FieldType(regular(plane_group("d4")), 2))
    values = features(layer.in_type)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(values), layer(values))
