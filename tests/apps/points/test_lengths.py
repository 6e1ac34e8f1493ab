"""Lengths of irreps: what the group leaves alone, and what is kept of it."""

from __future__ import annotations

import pytest
import torch

from parteq.apps.points.builder import PointBuilder
from parteq.apps.points.lengths import Lengths
from parteq.core.groups import space_group


@pytest.mark.parametrize("group", ["so3", "o3", "so2", "d4", "none"])
def test_lengths_are_invariant_and_trivial_irreps_are_kept(group: str) -> None:
    type = PointBuilder(group, "full").mixture(20.0, 2)
    lengths = Lengths(type)
    irreps = type.representation.irreps
    features = torch.randn(3, type.channels)
    output = lengths(features)
    assert output.shape == (3, lengths.out_type.channels) == (3, type.count * len(irreps))
    elements, _ = space_group(group).quadrature(2)
    for element in elements[1:20:6]:
        matrix = torch.block_diag(*[torch.from_numpy(type.representation(element)).float()] * type.count)
        torch.testing.assert_close(lengths(features @ matrix.T), output, atol=1e-5, rtol=1e-4)
    fixed = torch.tensor([irrep.is_trivial() for irrep in irreps]).repeat(type.count)
    flipped = lengths(-features)
    torch.testing.assert_close(flipped[:, fixed], -output[:, fixed])
    torch.testing.assert_close(flipped[:, ~fixed], output[:, ~fixed])


def test_the_gradient_is_finite_where_nothing_is() -> None:
    lengths = Lengths(PointBuilder("so3", "full").mixture(8.0, 1))
    features = torch.zeros(2, lengths.in_type.channels, requires_grad=True)
    lengths(features).sum().backward()
    assert features.grad.isfinite().all()
