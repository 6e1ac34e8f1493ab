from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from parteq.core.fields import FieldType, Representation, band_limited, direct_sum, regular, trivial
from parteq.core.groups import SymmetryGroup, plane_group, space_group
from parteq.core.norm import FieldBatchNorm
from tests.core.equivariance import check_gradients, check_state, equivariance_error, features, perturbed


def mixed_basis(group: SymmetryGroup, band: int) -> Representation:
    rho = band_limited(group, band)
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((rho.size, rho.size)))
    return Representation("mixed", group, rho.irreps, basis)


def seen(norm: nn.Module, values: torch.Tensor) -> nn.Module:
    """Let a norm take note of some batches, with scales and biases off their start."""
    perturbed(norm).train()
    for _ in range(3):
        norm(values)
    return norm


@pytest.mark.parametrize("make", [band_limited, mixed_basis, lambda group, band: regular(group)])
def test_equivariant_in_training_and_evaluation(group: SymmetryGroup, band: int, make: type) -> None:
    if group.continuous and make not in (band_limited, mixed_basis):
        group = plane_group("d3")
    norm = FieldBatchNorm(FieldType(make(group, band), 3))
    values = 2 * features(norm.in_type) + 1
    assert equivariance_error(seen(norm, values), values) < 1e-12
    assert equivariance_error(norm.eval(), values) < 1e-12


@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 2), st.sampled_from([(), (4,), (2, 3), (2, 1, 2)]))
def test_trivial_fields_have_an_ordinary_norm(batch: int, count: int, dimension: int, grid: tuple[int, ...]) -> None:
    norm = FieldBatchNorm(FieldType(trivial(plane_group("d4")), count))
    plain = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[len(grid)](count)
    for seed in range(2):
        values = 3 * features(norm.in_type, grid, batch, seed) - 1
        torch.testing.assert_close(norm(values), plain(values))
    torch.testing.assert_close(norm.running_mean.squeeze(1).abs(), plain.running_mean.abs())
    torch.testing.assert_close(norm.running_variance.squeeze(1), plain.running_var)
    torch.testing.assert_close(norm.eval()(values), plain.eval()(values))


def test_several_invariants_in_a_field_keep_their_own_statistics() -> None:
    group = plane_group("c4")
    norm = FieldBatchNorm(FieldType(direct_sum(group, {group.irreps(0)[0]: 3}), 2))
    values = features(norm.in_type) * torch.linspace(1, 9, 6)[:, None, None]
    torch.testing.assert_close(norm(values), nn.BatchNorm2d(6)(values))


def test_regular_fields_are_normalised_as_a_whole() -> None:
    norm = FieldBatchNorm(FieldType(regular(plane_group("d4")), 3))
    plain = nn.BatchNorm3d(3)
    values = 3 * features(norm.in_type) - 1
    expected = plain(values.unflatten(1, (3, 8)))
    torch.testing.assert_close(norm(values), expected.flatten(1, 2))
    torch.testing.assert_close(norm.running_variance.squeeze(1), plain.running_var)


def test_vectors_keep_their_mean() -> None:
    group = space_group("so3")
    norm = FieldBatchNorm(FieldType(direct_sum(group, {group.irreps(1)[1]: 1}), 1))
    output = norm(features(norm.in_type) + 5)
    assert float(output.detach().square().mean()) == pytest.approx(1, abs=1e-4)
    assert output.mean() > 0.5
    assert norm.bias.numel() == 0


@pytest.mark.parametrize(
    "representation",
    [
        *(regular(plane_group(name)) for name in ("c2", "c13", "d1", "d4", "d8")),
        regular(space_group("octahedral")),
        band_limited(plane_group("o2"), 2),
        trivial(plane_group("so2")),
    ],
    ids=["c2", "c13", "d1", "d4", "d8", "octahedral", "irreps", "trivial"],
)
def test_folds_into_a_convolution(representation: Representation) -> None:
    type_ = FieldType(representation, 2)
    norm = seen(FieldBatchNorm(type_), features(type_) + 1).eval()
    convolution = nn.Conv2d(3, type_.channels, 3)
    images = torch.randn(2, 3, 6, 6)
    expected = norm(convolution(images))
    scale, shift = norm.scale_and_shift()
    with torch.no_grad():
        convolution.weight.mul_(scale[:, None, None, None])
        convolution.bias.mul_(scale).add_(shift)
    torch.testing.assert_close(convolution(images), expected)


# Of a regular representation one process takes its own way; the sign of the invariant direction differs by the group.
@pytest.mark.parametrize("name", ["c2", "c13", "d1", "d4", "d8"])
def test_several_processes_normalise_as_one_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    type_ = FieldType(regular(plane_group(name)), 2)
    alone, together = (perturbed(FieldBatchNorm(type_)).train() for _ in range(2))
    values = features(type_) + 1
    expected = [alone(values), alone.eval()(values)]
    monkeypatch.setattr("parteq.core.norm.world_size", lambda: 2)
    torch.testing.assert_close([together(values), together.eval()(values)], expected)
    torch.testing.assert_close(together.state_dict(), alone.state_dict())


def test_a_norm_that_mixes_channels_does_not_fold() -> None:
    norm = FieldBatchNorm(FieldType(mixed_basis(plane_group("o2"), 1), 2))
    with pytest.raises(ValueError, match="mixes channels"):
        norm.scale_and_shift()


def test_one_number_has_no_variance() -> None:
    norm = FieldBatchNorm(FieldType(trivial(plane_group("c4")), 3))
    with pytest.raises(ValueError, match=r"(?i)more than"):
        norm(torch.ones(1, 3))
    assert norm.eval()(torch.ones(1, 3)).shape == (1, 3)


@pytest.mark.parametrize("make", [band_limited, mixed_basis])
def test_gradients_are_finite(make: type) -> None:
    norm = FieldBatchNorm(FieldType(make(plane_group("o2"), 2), 2))
    check_gradients(norm, features(norm.in_type))
    check_gradients(norm, torch.zeros_like(features(norm.in_type)))


@pytest.mark.parametrize("make", [band_limited, mixed_basis])
def test_state_and_copies(make: type) -> None:
    type_ = FieldType(make(plane_group("o2"), 2), 2)
    values = features(type_)
    check_state(seen(FieldBatchNorm(type_), values), FieldBatchNorm(type_), values)


def test_statistics_keep_their_digits_in_mixed_precision() -> None:
    torch.set_default_dtype(torch.float32)
    norm = FieldBatchNorm(FieldType(regular(plane_group("d4")), 2))
    values = (features(norm.in_type, (16, 16)) + 2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(values).dtype == torch.bfloat16
    norm_of_floats = FieldBatchNorm(norm.in_type)
    norm_of_floats(values.float())
    torch.testing.assert_close(norm.running_variance, norm_of_floats.running_variance)
    torch.testing.assert_close(norm.running_mean, norm_of_floats.running_mean)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_compiles_without_a_graph_break(training: bool) -> None:
    norm = FieldBatchNorm(FieldType(regular(plane_group("d4")), 2)).train(training)
    values = features(norm.in_type)
    torch.testing.assert_close(torch.compile(norm, fullgraph=True)(values), norm(values))
