"""Local layers and sums over points: molecules, whose many equal distances and bonds are what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from parteq.apps.points.models import PointNetwork, create_model, nearest
from parteq.apps.points.samples import samples
from parteq.datasets.points.clouds import open_clouds
from parteq.datasets.points.elements import COVALENT_RADII_IN_ANGSTROMS, ELEMENTS

OPTIONS = {"num_targets": 1, "in_features": 5, "group": "o3", "absolute": True, "layers": 2, "width": 0.5}
# Å; benzene, where two neighbours are as far away whichever one looks from.
RING = torch.tensor([1.39, 2.48])


def _benzene() -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.arange(6) * torch.pi / 3
    circle = torch.stack([angles.cos(), angles.sin(), torch.zeros(6)], dim=1)
    features = torch.zeros(1, 12, len(ELEMENTS))
    features[:, :6, ELEMENTS.index("C")] = 1.0
    features[:, 6:, ELEMENTS.index("H")] = 1.0
    return torch.cat([RING[0] * circle, RING[1] * circle])[None], features


def _model(**options: object) -> PointNetwork:
    torch.manual_seed(0)
    model = create_model(**(OPTIONS | options))
    model.set_lengths(2.0, 4.0)
    positions, features = _benzene()
    for _ in range(20):
        model((positions + 0.3 * torch.randn(4, 12, 3)), None, features.expand(4, -1, -1))  # running statistics
    return model.eval()


@pytest.mark.parametrize("neighbours", [4, 16])
@pytest.mark.parametrize("kernel", ["analytic", "implicit"])
@torch.no_grad()
def test_molecules_may_be_turned_and_mirrored(kernel: str, neighbours: int) -> None:
    options = {"attributes": ["features", "bonds"], "radii": COVALENT_RADII_IN_ANGSTROMS}
    model = _model(kernel=kernel, degree="full", neighbours=neighbours, **options)
    positions, features = _benzene()
    output = model(positions, None, features)
    assert (model(1.1 * positions, None, features) - output).abs() > 1e-3
    for _ in range(4):
        matrix = torch.linalg.qr(torch.randn(3, 3)).Q
        torch.testing.assert_close(model(positions @ matrix.T, None, features), output, atol=1e-5, rtol=1e-4)
    order = torch.randperm(12)
    torch.testing.assert_close(model(positions[:, order], None, features[:, order]), output, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_sums_grow_with_the_number_of_points() -> None:
    model = _model(degree="full")
    sums = []
    model.norm_sums.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0]))
    positions, features = _benzene()
    model(positions, None, features)
    both = torch.cat([positions, positions + 50.0], dim=1)
    model(both, None, features.repeat(1, 2, 1), nearest(both, torch.ones(1, 24, dtype=torch.bool), 11))
    torch.testing.assert_close(sums[1], 2 * sums[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_kernels_look_at_what_they_are_told_to() -> None:
    positions, features = _benzene()
    seen: dict[tuple[str, ...], torch.Tensor] = {}
    small = {"degree": "full", "layers": 1, "neighbours": 11}
    for attributes in ((), ("bonds",), ("features",), ("features", "bonds")):
        model = _model(kernel="implicit", attributes=attributes, radii=COVALENT_RADII_IN_ANGSTROMS, **small)
        model.local.filters.register_forward_pre_hook(lambda _, inputs, key=attributes: seen.update({key: inputs[1]}))
        model(positions, None, features)  # all others are neighbours
    assert seen[()] is None
    assert {len(key): seen[key].shape[1] for key in (("bonds",), ("features", "bonds"))} == {1: 1, 2: 11}
    assert seen[("features",)].shape[1] == 10
    # Six bonds of two carbons and six to hydrogen, each from both ends.
    assert seen[("bonds",)].sum() == 24


@pytest.mark.realdata
@torch.no_grad()
def test_real_molecules_may_be_turned_and_mirrored(shared_data: Path) -> None:
    clouds = open_clouds(f"qm9:{shared_data / 'qm9_12k.npz'}", "train").subset(range(200))
    model = _model(degree="full", layers=3, neighbours=12)
    positions, counts, features, neighbours = samples(clouds, 29, 12, None).tensors
    model.train()(positions, counts, features, neighbours)
    output = model.eval()(positions, counts, features, neighbours)
    matrix = torch.linalg.qr(torch.randn(200, 3, 3)).Q
    turned = (positions + 10.0) @ matrix.mT
    # Neighbours are found anew: many are equally far away.
    assert (model(turned, counts, features) - output).abs().max() < 1e-4 * output.std()
