from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from parteq.core.density import Density, FixedDensity, LearnedDensity, make_density
from parteq.core.fields import FieldType, band_limited, direct_sum, regular
from parteq.core.groups import SymmetryGroup, plane_group, space_group
from parteq.core.layers import PartialConv2d, PartialConv3d, PartialLayer, PartialLinear
from parteq.core.subgroups import axial_subgroup, subgroups
from tests.core.helpers import grid_elements, randomise, some_subgroups, transform

DEGREES = ("full", "none", "softmax", "squared")


def _fields(group: SymmetryGroup, count: int) -> FieldType:
    """Return regular fields of small finite groups, else the trivial irrep and the largest of frequency 1."""
    if not group.continuous and group.algebra.order() <= 10:
        return FieldType(regular(group), count)
    largest = max(group.irreps(1), key=lambda irrep: irrep.size)
    return FieldType(direct_sum(group, dict.fromkeys([group.irreps(0)[0], largest], 1)), count)


def _conv(group: SymmetryGroup, density: Density, size: int = 3, count: int = 1, **options: object) -> PartialLayer:
    make = PartialConv2d if group.dimension == 2 else PartialConv3d
    layer = make(_fields(group, 2), _fields(group, 2 * count), size, density, **options)  # type: ignore[arg-type]
    assert layer.bias is not None
    nn.init.normal_(layer.bias)
    return layer


def _images(layer: PartialLayer, edge: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, layer.in_type.channels, *[edge] * layer.density.group.dimension, generator=generator)


def _assert_equivariant(layer: PartialLayer, edge: int, tolerance: float = 1e-6) -> None:
    with torch.no_grad():
        images = _images(layer, edge)
        output = layer(images)
        assert output.abs().max() > 1e-3
        for h in grid_elements(layer.density.group):
            turned = layer(transform(layer.in_type, h, images))
            torch.testing.assert_close(turned, transform(layer.out_type, h, output), atol=tolerance, rtol=0)


# -- 1. equivariance where the grid allows it -------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "edge"), [(3, 5), (3, 6), (4, 5)])
def test_convolutions_are_equivariant_on_odd_and_even_grids(
    group: SymmetryGroup, band: int, size: int, edge: int
) -> None:
    torch.manual_seed(0)
    _assert_equivariant(_conv(group, make_density(group, "full", band), size), edge)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 0},
        {"dilation": 2},
        {"stride": 2},
        {"groups": 2},
        {"bias": True, "padding_mode": "circular"},
        {"padding_mode": "reflect"},
    ],
)
def test_options_of_convolutions_keep_equivariance(plane: SymmetryGroup, band: int, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    _assert_equivariant(_conv(plane, make_density(plane, "full", band), 3, **options), 7)


def test_pointwise_and_linear_maps_are_equivariant(group: SymmetryGroup, band: int) -> None:
    torch.manual_seed(0)
    density = make_density(group, "full", band)
    pointwise = _conv(group, density, 1)
    _assert_equivariant(pointwise, 3)
    linear = PartialLinear(pointwise.in_type, pointwise.out_type, density)
    linear.load_state_dict(pointwise.state_dict())
    images = _images(pointwise, 3)
    torch.testing.assert_close(linear(images.movedim(1, -1)).movedim(-1, 1), pointwise(images))


@pytest.mark.parametrize(
    ("name", "turn"), [("c4", True), ("d4", True), ("c8", True), ("so2", True), ("o2", True), ("d1", False)]
)
def test_equivariance_means_rot90_and_flip_of_torch(name: str, turn: bool) -> None:
    """On invariant input and output the convention of the grid is that of torch."""
    group = plane_group(name)
    scalars = FieldType(direct_sum(group, {group.irreps(0)[0]: 1}), 2)
    layer = PartialConv2d(scalars, scalars, 5, make_density(group, "full", 0))
    images = torch.randn(2, 2, 7, 7)
    with torch.no_grad():
        if turn:
            torch.testing.assert_close(layer(images.rot90(1, (-2, -1))), layer(images).rot90(1, (-2, -1)))
        if group.flip:
            torch.testing.assert_close(layer(images.flip(-2)), layer(images).flip(-2))


def test_a_positive_turn_shifts_regular_fields_forward() -> None:
    """From scalars to the regular field of C4: an anticlockwise turn moves channel g to channel g + 1."""
    group = plane_group("c4")
    scalars, fields = FieldType(direct_sum(group, {group.irreps(0)[0]: 1}), 1), FieldType(regular(group), 1)
    layer = PartialConv2d(scalars, fields, 3, make_density(group, "full", 0), bias=False)
    images = torch.randn(1, 1, 5, 5)
    expected = layer(images).rot90(1, (-2, -1)).roll(1, dims=1)
    torch.testing.assert_close(layer(images.rot90(1, (-2, -1))), expected)


@pytest.mark.parametrize("name", ["o2", "d4", "so2", "d2", "c4", "c8"])
def test_a_density_on_a_subgroup_keeps_that_subgroup_alone(name: str) -> None:
    torch.manual_seed(0)
    group = plane_group(name)
    for subgroup in [*subgroups(group), *some_subgroups(group)[1:3]]:
        dimension, order = subgroup.size
        if dimension or order > 4:
            continue
        layer = _conv(group, FixedDensity(group, 5, subgroup.quadrature(5)), 3)
        matrices = [group.matrix(h) for h in subgroup.quadrature(0)[0]]
        images = _images(layer, 5)
        with torch.no_grad():
            layer.bias.zero_()  # the bias is left alone by all of H
            output = layer(images)
            for h in grid_elements(group):
                gap = (layer(transform(layer.in_type, h, images)) - transform(layer.out_type, h, output)).abs().max()
                inside = any(np.allclose(group.matrix(h), matrix) for matrix in matrices)
                assert (gap < 1e-6) == inside, f"{subgroup.name} of {group}"


def test_an_axial_density_in_space_keeps_turns_about_its_axis() -> None:
    group = space_group("so3")
    layer = _conv(group, FixedDensity(group, 4, axial_subgroup(group, (1, 0, 0)).quadrature(4)), 3)
    images = _images(layer, 3)
    with torch.no_grad():
        output = layer(images)
        for h in grid_elements(group):
            gap = (layer(transform(layer.in_type, h, images)) - transform(layer.out_type, h, output)).abs().max()
            assert (gap < 1e-6) == bool(group.matrix(h)[0, 0] > 0.5)


# -- 6. λ receives a gradient at the first step ------------------------------------------------------------------------


@pytest.mark.only(lambda group: len(group.irreps(1)) > 1)  # a group of one element has one density
@pytest.mark.parametrize("degree", ["softmax", "squared"])
def test_the_density_learns_from_the_first_step(group: SymmetryGroup, band: int, degree: str) -> None:
    torch.manual_seed(0)
    layer = _conv(group, make_density(group, degree, band if degree == "softmax" else max(2, band)), 3)
    images = _images(layer, 3)
    output = layer(images)
    nn.functional.mse_loss(output, torch.randn(output.shape)).backward()
    (parameter,) = layer.density.parameters()
    assert parameter.grad is not None
    assert torch.isfinite(parameter.grad).all()
    assert float(parameter.grad.norm()) > 1e-6
    assert float(layer.kernel.weight.grad.norm()) > 1e-6


# -- 7. state ---------------------------------------------------------------------------------------------------------


def _pickled(layer: PartialLayer) -> PartialLayer:
    twin = pickle.loads(pickle.dumps(layer))
    assert isinstance(twin, PartialLayer)
    return twin


@pytest.mark.parametrize("duplicate", [copy.deepcopy, _pickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("degree", DEGREES)
def test_copies_compute_the_same_and_share_nothing(
    group: SymmetryGroup, band: int, degree: str, duplicate: Callable[[PartialLayer], PartialLayer]
) -> None:
    layer = _conv(group, make_density(group, degree, band), 3)
    randomise(layer.density, torch.Generator().manual_seed(0))
    images = _images(layer, 3)
    with torch.no_grad():
        before = layer(images)
        twin = duplicate(layer)
        torch.testing.assert_close(twin(images), before)
        assert twin.in_type.group is twin.density.group is group
        for parameter in twin.parameters():
            parameter.add_(1.0)
        torch.testing.assert_close(layer(images), before)


def test_a_shared_density_stays_shared_in_a_copy() -> None:
    group = plane_group("d4")
    density = make_density(group, "softmax", 0)
    network = nn.Sequential(_conv(group, density), _conv(group, density))
    twin = copy.deepcopy(network)
    assert twin[0].density is twin[1].density
    assert twin[0].density is not density
    assert len(list(network.parameters())) == 2 * 2 + 1
    twin.load_state_dict(network.state_dict())


@pytest.mark.parametrize("degree", DEGREES)
def test_two_networks_share_no_memory(degree: str) -> None:
    group = plane_group("d4")
    first, second = (_conv(group, make_density(group, degree, 0)) for _ in range(2))
    mine = {tensor.data_ptr(): name for name, tensor in [*first.named_parameters(), *first.named_buffers()]}
    for name, tensor in [*second.named_parameters(), *second.named_buffers()]:
        assert not tensor.numel() or tensor.data_ptr() not in mine, f"{name} is shared"


@pytest.mark.parametrize(("source", "target"), itertools.product(DEGREES, DEGREES))
@pytest.mark.parametrize("name", ["d4", "so2"])
def test_states_load_into_the_same_degree_alone(name: str, source: str, target: str) -> None:
    group = plane_group(name)
    first, second = (_conv(group, make_density(group, degree, 2)) for degree in (source, target))
    randomise(first.density, torch.Generator().manual_seed(0))
    if source != target:
        with pytest.raises(RuntimeError, match=r"size mismatch|Missing key|Unexpected key"):
            second.load_state_dict(first.state_dict())
        return
    second.load_state_dict(first.state_dict())
    images = _images(first, 5)
    torch.testing.assert_close(second(images), first(images))


@pytest.mark.parametrize("degree", DEGREES)
def test_state_holds_no_derived_tensor_in_either_mode(degree: str) -> None:
    layer = _conv(plane_group("o2"), make_density(plane_group("o2"), degree, 2))
    names = {"bias", "kernel.weight"}
    names |= {"softmax": {"kernel.density.logits"}, "squared": {"kernel.density.amplitudes"}}.get(degree, set())
    assert set(layer.state_dict()) == names
    assert set(layer.eval().state_dict()) == names
    assert set(layer.train().state_dict()) == names


# -- 8. compilation ---------------------------------------------------------------------------------------------------


def _compiled_layers() -> list[tuple[str, Callable[[], tuple[nn.Module, Tensor]]]]:
    def conv(group: SymmetryGroup, **options: object) -> tuple[nn.Module, Tensor]:
        layer = _conv(group, make_density(group, "softmax", 1), **options)
        return layer, _images(layer, 5)

    def linear() -> tuple[nn.Module, Tensor]:
        fields = _fields(plane_group("d4"), 2)
        return PartialLinear(fields, fields, make_density(plane_group("d4"), "squared", 0)), torch.randn(
            3, fields.channels
        )

    return [
        ("conv2d", lambda: conv(plane_group("o2"))),
        ("depthwise", lambda: conv(plane_group("d4"), groups=2)),
        ("padded", lambda: conv(plane_group("c4"), padding_mode="reflect")),
        ("conv3d", lambda: conv(space_group("so3"))),
        ("linear", linear),
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "backend",
    ["eager", pytest.param("aot_eager", marks=pytest.mark.slow), pytest.param("inductor", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("make", [case[1] for case in _compiled_layers()], ids=[case[0] for case in _compiled_layers()])
def test_layers_compile_without_a_graph_break(make: Callable[[], tuple[nn.Module, Tensor]], backend: str) -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    torch.compiler.reset()
    layer, features = make()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    expected = layer(features)
    torch.testing.assert_close(compiled(features), expected, atol=1e-5, rtol=1e-4)
    wanted = torch.autograd.grad(expected.square().mean(), list(layer.parameters()))
    given = torch.autograd.grad(compiled(features).square().mean(), list(layer.parameters()))
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-3)


# -- 10. the plain layer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", DEGREES)
def test_the_plain_layer_computes_the_same(group: SymmetryGroup, band: int, degree: str) -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    for options in ({}, {"stride": 2, "padding_mode": "circular", "groups": 2}, {"bias": False, "dilation": 2}):
        make = PartialConv2d if group.dimension == 2 else PartialConv3d
        layer = make(_fields(group, 2), _fields(group, 2), 3, make_density(group, degree, band), **options)
        randomise(layer.density, torch.Generator().manual_seed(0))
        plain = layer.plain()
        assert type(plain) in (nn.Conv2d, nn.Conv3d)
        images = _images(layer, 5)
        torch.testing.assert_close(plain(images), layer(images), atol=1e-5, rtol=1e-5)


def test_the_plain_linear_map_computes_the_same(group: SymmetryGroup, band: int) -> None:
    torch.set_default_dtype(torch.float32)
    layer = PartialLinear(_fields(group, 2), _fields(group, 3), make_density(group, "softmax", band))
    features = torch.randn(4, 5, layer.in_type.channels)
    plain = layer.plain()
    assert type(plain) is nn.Linear
    torch.testing.assert_close(plain(features), layer(features), atol=1e-5, rtol=1e-5)


# -- shapes and refusals ----------------------------------------------------------------------------------------------


def test_bias_is_on_the_invariant_components(group: SymmetryGroup, band: int) -> None:
    layer = _conv(group, make_density(group, "full", band))
    bias = layer.expanded_bias().detach().unflatten(0, (layer.out_type.count, -1)).numpy()
    assert np.abs(bias).max() > 0
    for h in grid_elements(group):
        np.testing.assert_allclose(bias @ layer.out_type.representation(h).T, bias, atol=1e-9)


def test_a_learned_density_is_used_as_it_stands() -> None:
    """Two layers with one density see it change together."""
    group = plane_group("c4")
    density = make_density(group, "softmax", 0)
    layers = [_conv(group, density) for _ in range(2)]
    before = [layer.weight().detach() for layer in layers]  # type: ignore[operator]
    assert isinstance(density, LearnedDensity)
    randomise(density, torch.Generator().manual_seed(0))
    for layer, weight in zip(layers, before, strict=True):
        assert not torch.allclose(layer.weight(), weight)  # type: ignore[operator]


def test_groups_of_the_other_dimension_are_refused() -> None:
    for make, group in ((PartialConv2d, space_group("c4")), (PartialConv3d, plane_group("c4"))):
        fields = FieldType(regular(group), 1)
        with pytest.raises(ValueError, match="does not act in"):
            make(fields, fields, 3, make_density(group, "full", 0))


def test_the_same_group_by_two_names_fits_together() -> None:
    none, c1 = plane_group("none"), plane_group("c1")
    PartialLinear(FieldType(regular(none), 1), FieldType(regular(c1), 1), make_density(c1, "full", 0))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kernel_size": 0}, "kernel_size must be at least 1"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"dilation": 0}, "dilation must be at least 1"),
        ({"padding": -1}, "padding must not be negative"),
        ({"groups": 0}, "0 groups do not divide"),
        ({"groups": 3}, "3 groups do not divide"),
        ({"padding_mode": "mirror"}, "unknown padding_mode 'mirror': use zeros, reflect"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], reason: str) -> None:
    group = plane_group("c4")
    type_ = FieldType(regular(group), 2)
    with pytest.raises(ValueError, match=reason):
        PartialConv2d(type_, type_, density=make_density(group, "full", 0), **{"kernel_size": 3} | options)


@pytest.mark.parametrize("name", ["d4", "so2"])
def test_mixed_precision_leaves_the_kernel_alone(name: str) -> None:
    """In bfloat16 a uniform density would not quite be one, and what is exactly equivariant would be so no more."""
    group = plane_group(name)
    type_ = FieldType(band_limited(group, 1), 2)
    layer = PartialConv2d(type_, type_, 3, make_density(group, "learned", 2)).float()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer.weight()
        assert layer(torch.zeros(1, type_.channels, 4, 4, dtype=torch.float32)).dtype == torch.bfloat16
    torch.testing.assert_close(mixed, layer.weight(), atol=0, rtol=0)
