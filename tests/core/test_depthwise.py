from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from parteq.core.density import SoftmaxDensity, make_density
from parteq.core.depthwise import PartialDepthwise2d, PartialDepthwise3d
from parteq.core.fields import FieldType, band_limited, regular, trivial
from parteq.core.filters import grid_points
from parteq.core.groups import SymmetryGroup, plane_group, space_group
from parteq.core.measure import broken_energy
from tests.core.equivariance import features
from tests.core.helpers import grid_elements, randomise, transform


def _layer(group: SymmetryGroup, degree: str = "full", **options: object) -> PartialDepthwise2d | PartialDepthwise3d:
    torch.manual_seed(0)
    make = PartialDepthwise2d if group.dimension == 2 else PartialDepthwise3d
    layer = make(FieldType(regular(group), 2), 3, make_density(group, degree, 2), **options)
    assert layer.bias is not None
    nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize("edge", [5, 6])
@pytest.mark.parametrize("symmetry", [plane_group("c4"), plane_group("c8"), plane_group("d4"), space_group("d4")])
def test_equivariant_on_odd_and_even_grids(symmetry: SymmetryGroup, edge: int) -> None:
    layer = _layer(symmetry)
    images = features(layer.in_type, (edge,) * symmetry.dimension)
    with torch.no_grad():
        output = layer(images)
        assert output.abs().max() > 1e-2
        for h in grid_elements(symmetry):
            turned = layer(transform(layer.in_type, h, images))
            torch.testing.assert_close(turned, transform(layer.out_type, h, output), atol=1e-6, rtol=0)


def test_an_equivariant_field_has_one_free_filter() -> None:
    layer = _layer(plane_group("d4"))
    assert layer.kernel.rows == 9
    first, other = layer.weight().flatten(1)[[0, 3]].sort(dim=1).values  # turned copies hold the same numbers
    torch.testing.assert_close(first, other)
    assert _layer(plane_group("d4"), "none").kernel.rows == 8 * 9


def test_channels_do_not_see_each_other() -> None:
    layer = _layer(plane_group("d4"), "none", bias=True)
    images = features(layer.in_type, (6, 6))
    alone = torch.zeros_like(images)
    alone[:, 5] = images[:, 5]
    torch.testing.assert_close(layer(alone)[:, 5], layer(images)[:, 5])


def test_the_projection_is_the_integral_over_the_group() -> None:
    """As diagonal matrices: (P_λ W)(x) = Σ_h λ(h) ρ(h) W(h⁻¹x) ρ(h)⁻¹ / |H|."""
    group = plane_group("d4")
    density = SoftmaxDensity(group, 2)
    randomise(density, torch.Generator().manual_seed(0), 1.0)
    layer = PartialDepthwise2d(FieldType(regular(group), 1), 3, density)
    projected = layer.weight().detach().numpy().reshape(8, 9)
    layer.kernel.density = make_density(group, "none", 2)
    free = layer.weight().detach().numpy().reshape(8, 9)
    points, expected = grid_points(3, 2), np.zeros((8, 9))
    for h, weight in zip(group.algebra.elements, density.density_at(group.algebra.elements).tolist(), strict=True):
        source = np.abs((points @ group.matrix(h))[:, None] - points).sum(-1).argmin(1)
        rho = layer.out_type.representation(h)
        diagonal = np.einsum("oc,cx,oc->ox", rho, free[:, source], rho)
        expected += weight / 8 * diagonal
    np.testing.assert_allclose(projected, expected, atol=1e-10)


def test_the_broken_energy_is_that_of_the_density() -> None:
    assert broken_energy(_layer(plane_group("d4"))) < 1e-12
    assert broken_energy(_layer(plane_group("d4"), "none")) > 0.5


def test_the_plain_layer_is_an_ordinary_depthwise_convolution() -> None:
    layer = _layer(plane_group("d4"), "learned", stride=2)
    images = features(layer.in_type, (7, 6))
    plain = layer.plain()
    assert isinstance(plain, nn.Conv2d)
    assert plain.groups == layer.in_type.channels == 16
    torch.testing.assert_close(plain(images), layer(images))
    expected = functional.conv2d(images, layer.weight(), layer.expanded_bias(), stride=2, padding=1, groups=16)
    torch.testing.assert_close(layer(images), expected)


def test_without_a_group_it_is_an_ordinary_depthwise_convolution() -> None:
    group = plane_group("none")
    layer = PartialDepthwise2d(FieldType(trivial(group), 4), 5, make_density(group, "full", 0))
    assert layer.kernel.weight.shape == (25, 4, 1)


def test_representations_that_mix_components_are_refused() -> None:
    group = plane_group("so2")
    with pytest.raises(ValueError, match="does not permute its components"):
        PartialDepthwise2d(FieldType(band_limited(group, 1), 2), 3, make_density(group, "full", 2))
