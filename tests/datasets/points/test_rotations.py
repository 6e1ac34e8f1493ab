"""Rotations of clouds: what is drawn, and that clouds turn by it."""

from __future__ import annotations

import math

import pytest
import torch

from parteq.datasets.errors import DataError
from parteq.datasets.points.rotations import draw_rotations, parse_rotation, rotate


def draw(text: str, count: int = 4000, seed: int = 0) -> torch.Tensor:
    return parse_rotation(text)(count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("text", ["none", "z", "so3", "tilt:30", "tilt:0", "tilt:-200.5"])
def test_rotations_are_rotations_and_follow_their_seed(text: str) -> None:
    rotations = draw(text, 50)
    assert rotations.dtype == torch.float32
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    assert (torch.linalg.det(rotations) > 0).all()
    assert torch.equal(rotations, draw(text, 50))
    if text in ("z", "so3", "tilt:30"):
        assert not torch.allclose(rotations, draw(text, 50, seed=1))


def test_kinds() -> None:
    assert torch.equal(draw("none", 3), torch.eye(3).expand(3, 3, 3))
    about_z = draw("z")
    assert (about_z[:, 2, 2] == 1).all()
    # Any angle alike: the means of the first two harmonics vanish.
    angles = torch.atan2(about_z[:, 1, 0], about_z[:, 0, 0])
    for frequency in (1, 2):
        assert (frequency * angles).cos().mean().abs() < 0.05
    tilts = draw("tilt:30")
    assert tilts[:, 2, 2].numpy() == pytest.approx(math.cos(math.pi / 6), abs=1e-5)
    horizontal = tilts[:, :2, 2]
    assert horizontal.mean(0).abs().max() < 0.02
    assert horizontal.norm(dim=1).numpy() == pytest.approx(0.5, abs=1e-5)


def test_so3_is_uniform() -> None:
    """The first and second moments of a uniformly distributed rotation, and its angle: 2/3 of them beyond 104.7°."""
    rotations = draw("so3", 20_000)
    assert rotations.mean(0).abs().max() < 0.02
    assert rotations.square().mean(0).numpy() == pytest.approx(1 / 3, abs=0.02)
    traces = rotations.diagonal(dim1=1, dim2=2).sum(1)
    angles = ((traces - 1) / 2).clamp(-1, 1).acos()
    assert angles.mean().item() == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.02)


@pytest.mark.parametrize("text", ["", "x", "tilt", "tilt:", "tilt:much", "tilt:nan", "z:3", "none:"])
def test_refused(text: str) -> None:
    with pytest.raises(DataError, match="is none of none, z, so3 and tilt:DEGREES"):
        parse_rotation(text)


def test_clouds_turn_each_by_its_own() -> None:
    positions, index = torch.randn(7, 3), torch.tensor([0, 0, 0, 1, 2, 2, 2])
    rotations = draw_rotations("so3", 3, torch.Generator().manual_seed(0))
    turned = rotate(positions, rotations, index)
    for point in range(7):
        torch.testing.assert_close(turned[point], rotations[index[point]] @ positions[point])
