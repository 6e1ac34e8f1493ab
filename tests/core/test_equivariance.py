"""The public test of equivariance agrees with exact turns, and tells broken modules from whole ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parteq.core.axis import Axis
from parteq.core.density import make_density
from parteq.core.equivariance import act, assert_equivariant, equivariance_error, lie_derivative
from parteq.core.fields import FieldType, band_limited, regular, trivial
from parteq.core.groups import plane_group, space_group
from parteq.core.layers import PartialConv2d, PartialConv3d


@pytest.mark.parametrize("size", [6, 7])
def test_quarter_turns_of_scalars_are_rot90(size: int) -> None:
    group = plane_group("d4")
    images = torch.randn(2, 3, size, size)
    scalars = FieldType(trivial(group), 3)
    for quarters in range(4):
        turned = act(images, scalars, group.rotation(quarters * torch.pi / 2))
        torch.testing.assert_close(turned, images.rot90(quarters, (-2, -1)), atol=0, rtol=0)
    torch.testing.assert_close(act(images, scalars, group.rotation(0, flipped=True)), images.flip(-2), atol=0, rtol=0)


def test_quarter_turns_are_exact_in_half_precision_too() -> None:
    group = plane_group("c4")
    images = torch.randn(1, 1, 201, 201).bfloat16()
    turned = act(images, FieldType(trivial(group), 1), group.rotation(torch.pi / 2))
    torch.testing.assert_close(turned, images.rot90(1, (-2, -1)), atol=0, rtol=0)


@pytest.mark.parametrize("size", [6, 7])
def test_layers_of_the_plane_and_of_space(size: int) -> None:
    for group, make, shape in (
        (plane_group("d4"), PartialConv2d, (size, size)),
        (space_group("octahedral"), PartialConv3d, (size, size, size)),
    ):
        type_ = FieldType(regular(group), 1)
        features = torch.randn(1, type_.channels, *shape)
        elements = list(group.algebra.elements)
        assert_equivariant(make(type_, type_, 3, make_density(group, "full", 0)), type_, type_, features, elements)
        broken = make(type_, type_, 3, make_density(group, "none", 0))
        with pytest.raises(AssertionError, match="equivariance error"):
            assert_equivariant(broken, type_, type_, features, elements)


def test_actions_compose() -> None:
    group = plane_group("d4")
    type_ = FieldType(regular(group), 2)
    features = torch.randn(1, type_.channels, 5, 5, dtype=torch.float64)
    first, second = list(group.algebra.elements)[3], list(group.algebra.elements)[6]
    torch.testing.assert_close(act(act(features, type_, second), type_, first), act(features, type_, first @ second))


def test_turns_between_the_pixels_are_close() -> None:
    group = plane_group("so2")
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 33)] * 2, indexing="ij")
    images = torch.exp(-4 * (x**2 + 2 * y**2))[None, None]
    scalars = FieldType(trivial(group), 1)
    blur = nn.AvgPool2d(3, 1, 1)
    assert equivariance_error(blur, scalars, scalars, images, group.rotation(0.6)) < 0.02


def test_the_lie_derivative_is_small_for_what_does_not_turn() -> None:
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 33)] * 2, indexing="ij")
    images = torch.exp(-4 * (x**2 + 2 * (y - 0.2) ** 2))[None, None]
    total = lie_derivative(lambda batch: batch.mean((2, 3)), images)
    sideways = lie_derivative(lambda batch: (batch * x).sum((2, 3)), images)
    assert total < 0.01 < 0.5 < sideways


def test_groups_about_a_tilted_axis() -> None:
    group, axis = space_group("so2"), Axis((1.0, 0.0, 0.0))
    before, after = FieldType(trivial(group), 1), FieldType(band_limited(group, 1), 1)
    layer = PartialConv3d(before, after, 3, make_density(group, "full", 0), axis=axis)
    volumes, quarter = torch.randn(1, 1, 5, 5, 5), [group.rotation(torch.pi / 2)]
    # A quarter turn about x takes y to z; axes of volumes are z, y, x.
    torch.testing.assert_close(act(volumes, before, quarter[0], axis), volumes.rot90(-1, (-3, -2)), atol=0, rtol=0)
    assert_equivariant(layer, before, after, volumes, quarter, axis=axis)
    with pytest.raises(AssertionError, match="equivariance error"):
        assert_equivariant(layer, before, after, volumes, quarter)
    whole = FieldType(trivial(space_group("so3")), 1)
    with pytest.raises(ValueError, match="is not about an axis"):
        act(volumes, whole, whole.group.algebra.identity, axis)


def test_grids_that_are_not_turned_onto_themselves() -> None:
    group = plane_group("c4")
    type_ = FieldType(regular(group), 1)
    quarter = group.rotation(torch.pi / 2)
    with pytest.raises(ValueError, match="a grid of 4 × 6 is not turned onto itself"):
        act(torch.zeros(1, 4, 4, 6), type_, quarter)
    assert act(torch.zeros(0, 4, 6, 6), type_, quarter).shape == (0, 4, 6, 6)
