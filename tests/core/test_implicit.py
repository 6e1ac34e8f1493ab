"""Implicit filters: how they turn, what they take, and layers that use them."""

from __future__ import annotations

import pytest
import torch

from parteq.core.axis import Axis
from parteq.core.density import make_density
from parteq.core.fields import FieldType
from parteq.core.groups import space_group
from parteq.core.implicit import ImplicitFilters
from parteq.core.points import PartialPointConv
from tests.core.helpers import each_irrep_once, randomise, some_elements


@pytest.mark.parametrize("name", ["so3", "o3", "so2", "cone", "d3", "c1"])
def test_layers_with_implicit_filters_are_equivariant(name: str, rng: torch.Generator) -> None:
    torch.manual_seed(0)
    group = space_group(name)
    density = make_density(group, "full", 2)
    filters = ImplicitFilters(1.0, density, attributes=2, shells=2, frequency=1, fields=2)
    type_ = FieldType(each_irrep_once(group, 1), 1)
    layer = PartialPointConv(type_, type_, filters, density)
    positions, edges = torch.randn(5, 3, generator=rng), torch.randint(0, 5, (2, 12), generator=rng)
    attributes, features = torch.randn(12, 2, generator=rng), torch.randn(5, type_.channels, generator=rng)

    def run(positions: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return layer(features, edges, filters(positions[edges[0]] - positions[edges[1]], attributes))

    output = run(positions, features)
    assert output.abs().max() > 1e-3
    for element in some_elements(group, 3):
        matrix, rho = torch.from_numpy(group.matrix(element)), torch.from_numpy(type_.representation(element))
        torch.testing.assert_close(run(positions @ matrix.T, features @ rho.T), output @ rho.T, atol=1e-9, rtol=0)


def test_a_density_breaks_them_and_learns() -> None:
    torch.manual_seed(0)
    density = make_density(space_group("so3"), "learned", 2)
    filters = ImplicitFilters(1.0, density, shells=2, frequency=1, fields=2)
    vectors = torch.randn(6, 3)
    turned = vectors.roll(1, dims=1)
    invariant = [0, 4]  # of each field the first component
    torch.testing.assert_close(filters(vectors)[:, invariant], filters(turned)[:, invariant])
    randomise(density, torch.Generator().manual_seed(0))
    difference = filters(vectors)[:, invariant] - filters(turned)[:, invariant]
    assert difference.abs().max() > 1e-2
    difference.square().sum().backward()
    assert density.logits.grad.abs().sum() > 0


def test_an_axis_turns_them() -> None:
    density = make_density(space_group("so2"), "full", 2)
    filters = ImplicitFilters(1.0, density, axis=Axis((1.0, 0.0, 0.0)))
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    vectors = torch.randn(6, 3)
    # The first component of each field is invariant; fields have 1 + 2 + 2 components.
    torch.testing.assert_close(filters(vectors)[:, ::5], filters(vectors @ turn.T)[:, ::5])


def test_attributes_and_groups_must_fit() -> None:
    filters = ImplicitFilters(1.0, make_density(space_group("so3"), "full", 2), attributes=1)
    with pytest.raises(ValueError, match="1 attributes"):
        filters(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="not for"):
        filters.bank(space_group("o3"))
