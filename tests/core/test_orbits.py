"""Weights that symmetry makes equal are equal to the last bit in a folded network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from parteq.core.density import LearnedDensity, make_density
from parteq.core.depthwise import PartialDepthwise2d
from parteq.core.export import fold
from parteq.core.fields import FieldType, regular, trivial
from parteq.core.groups import plane_group, space_group
from parteq.core.layers import PartialConv2d, PartialConv3d, PartialLayer, PartialLinear
from parteq.core.norm import FieldBatchNorm
from parteq.core.orbits import tied
from tests.core.helpers import randomise


@pytest.fixture(autouse=True)
def _float32(_float64: None) -> Iterator[None]:
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


def _layer(name: str, kind: str, degree: str = "full") -> PartialLayer:
    torch.manual_seed(0)
    group = space_group(name) if kind == "volume" else plane_group(name)
    density = make_density(group, degree, 4)
    colours, fields = FieldType(trivial(group), 3), FieldType(regular(group), 4)
    match kind:
        case "lifting":
            return PartialConv2d(colours, fields, 5, density)
        case "even":
            return PartialConv2d(fields, fields, 4, density)
        case "grouped":
            return PartialConv2d(fields, fields, 3, density, groups=2)
        case "depthwise":
            return PartialDepthwise2d(fields, 3, density)
        case "linear":
            return PartialLinear(fields, fields, density)
        case "volume":
            return PartialConv3d(colours, fields, 3, density)
    return PartialConv2d(fields, fields, 3, density)


@pytest.mark.parametrize("kind", ["lifting", "plain", "even", "grouped", "depthwise", "linear"])
@pytest.mark.parametrize("name", ["c4", "d4"])
def test_a_tied_weight_has_as_many_values_as_the_layer_has_weights(name: str, kind: str) -> None:
    layer = _layer(name, kind)
    weight = layer.plain().weight.detach()
    equal = tied(weight, layer)
    torch.testing.assert_close(equal, weight, atol=1e-6, rtol=0)
    assert len(equal.unique()) == layer.kernel.weight.numel()


def test_it_matters() -> None:
    layer = _layer("d4", "plain")
    weight = layer.plain().weight
    assert len(weight.unique()) > layer.kernel.weight.numel()


def test_volumes_are_tied() -> None:
    layer = _layer("d4", "volume")
    weight = layer.plain().weight.detach()
    assert len(tied(weight, layer).unique()) == layer.kernel.weight.numel()


def test_eighth_turns_fall_between_pixels_and_quarter_turns_do_not() -> None:
    layer = _layer("c8", "plain")
    equal = tied(layer.plain().weight.detach(), layer)
    # Turned by a quarter, which moves components by two, the kernel is the same to the bit.
    blocks = equal.view(4, 8, 4, 8, 3, 3)
    turned = torch.rot90(blocks.roll((2, 2), (1, 3)), 1, (-2, -1))
    assert torch.equal(turned, blocks)


@pytest.mark.parametrize("name", ["d4", "c8"])
def test_a_weight_that_broke_the_symmetry_is_left_as_it_is(name: str) -> None:
    layer = _layer(name, "plain", "learned")
    assert isinstance(layer.density, LearnedDensity)
    randomise(layer.density, torch.Generator().manual_seed(0))
    weight = layer.plain().weight.detach()
    assert torch.equal(tied(weight, layer), weight)


def test_folding_ties_weights_and_biases() -> None:
    group = plane_group("d4")
    convolution, norm = _layer("d4", "plain"), FieldBatchNorm(FieldType(regular(group), 4))
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_variance):
            tensor.uniform_(0.5, 2.0)
    folded = fold(nn.Sequential(convolution, norm))[0]
    largest = folded.weight.abs().amax(dim=(1, 2, 3)).view(4, 8)
    assert torch.equal(largest, largest[:, :1].expand(4, 8))
    bias = folded.bias.view(4, 8)
    assert torch.equal(bias, bias[:, :1].expand(4, 8))
