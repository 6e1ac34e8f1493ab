from __future__ import annotations

import pytest
import roma
import torch

from parteq.apps.points.builder import PointBuilder
from parteq.apps.points.models import create_model
from parteq.apps.points.patches import Patches


def _patches(degree: str = "full", nodes: int = 8) -> Patches:
    torch.manual_seed(0)
    builder = PointBuilder("so3", degree)
    return Patches(builder, builder.invariants(1), nodes, 0.5, 0).eval()


def _whole(clouds: int, points: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    positions = torch.randn(clouds, points, 3, generator=torch.Generator().manual_seed(1))
    return positions, torch.ones(clouds, points, dtype=torch.bool), torch.ones(clouds, points, 1)


def test_a_turned_cloud_has_the_same_nodes_and_turned_features() -> None:
    patches = _patches()
    positions, present, bare = _whole(3, 40)
    turn = roma.random_rotmat()
    nodes, there, features = patches(positions, present, bare)
    turned_nodes, _, turned = patches(positions @ turn.mT, present, bare)
    assert there.all()
    assert torch.equal(nodes, turned_nodes)
    group, type_ = patches.out_type.group, patches.out_type
    matrix = type_.representation(group.algebra.element(turn.double().numpy(), "MAT"))
    fields = features.unflatten(2, (type_.count, -1)).double() @ torch.from_numpy(matrix).mT
    torch.testing.assert_close(turned.double(), fields.flatten(2), atol=1e-5, rtol=0)


def test_what_is_not_there_changes_nothing() -> None:
    patches = _patches()
    positions, present, bare = _whole(3, 40)
    sizes = [40, 20, 5]
    present = torch.arange(40) < torch.tensor(sizes)[:, None]
    nodes, there, features = patches(positions.masked_fill(~present[..., None], 7.0), present, bare)
    assert there.sum(1).tolist() == [8, 8, 5]
    for cloud, size in enumerate(sizes):
        rows = slice(cloud, cloud + 1)
        alone = patches(positions[rows, :size], present[rows, :size], bare[rows, :size])
        count = int(there[cloud].sum())
        assert torch.equal(nodes[cloud, :count], alone[0][0, :count])
        torch.testing.assert_close(features[cloud, :count], alone[2][0, :count], atol=1e-5, rtol=0)
    assert not features[2, 5:].any()


@pytest.mark.parametrize("degree", ["full", "learned"])
def test_a_network_of_patches_starts_invariant(degree: str) -> None:
    torch.manual_seed(0)
    model = create_model(num_classes=3, degree=degree, layers=1, patches=8, neighbours=4, width=0.5).eval()
    positions = torch.randn(2, 64, 3)
    logits = model(positions)
    # But for what Fourier nonlinearities fold back.
    torch.testing.assert_close(model(positions @ roma.random_rotmat().mT), logits, atol=2e-2, rtol=0)
    torch.testing.assert_close(
        model(3 * positions + 5)[:, :1] - model(3 * positions)[:, :1], torch.zeros(2, 1), atol=1e-4, rtol=0
    )
