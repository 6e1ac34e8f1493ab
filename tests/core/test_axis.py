"""Groups about any axis: the kernels are those about z, turned."""

from __future__ import annotations

import math

import pytest
import torch

from parteq.core.axis import Axis
from parteq.core.density import make_density
from parteq.core.fields import FieldType, band_limited, regular
from parteq.core.groups import space_group
from parteq.core.layers import PartialConv3d

NAMES = ["so2", "c4", "d3", "cone", "o2"]


def _layer(name: str, degree: str, axis: Axis) -> PartialConv3d:
    torch.manual_seed(0)
    group = space_group(name)
    type_ = FieldType(band_limited(group, 1) if group.continuous else regular(group), 2)
    return PartialConv3d(type_, type_, 5, make_density(group, degree, 2), axis=axis, bias=False).double()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("degree", ["full", "learned"])
def test_kernels_about_x_are_those_about_z_turned(name: str, degree: str) -> None:
    about_x = _layer(name, degree, Axis((1.0, 0.0, 0.0))).weight()
    about_z = _layer(name, degree, Axis()).weight()
    # The smallest rotation from z to x takes (x, y, z) to (z, y, -x).
    torch.testing.assert_close(about_x, about_z.flip(-1).transpose(-1, -3), atol=1e-6, rtol=0)


def test_the_rotation_vector_takes_z_to_the_axis() -> None:
    for direction in ((0.0, 0.0, 1.0), (1.0, 2.0, 3.0), (-1.0, 0.5, -0.9), (1e-6, 0.0, 1.0)):
        axis = Axis(direction).double()
        turned = axis.rotation() @ torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        torch.testing.assert_close(turned, axis(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), (1.0, 1.0, 0.0)])
def test_a_learned_axis_has_a_true_gradient(direction: tuple[float, float, float]) -> None:
    layer = _layer("c4", "full", Axis(direction, learned=True))
    target = _layer("c4", "full", Axis((1.0, 2.0, 2.0))).weight().detach()

    def loss(vector: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            layer.kernel.axis.direction.copy_(vector)
        return (layer.weight() - target).square().sum()

    start = torch.tensor(direction, dtype=torch.float64)
    loss(start).backward()
    gradient = layer.kernel.axis.direction.grad
    for k in range(2):
        step = torch.zeros(3, dtype=torch.float64)
        step[k] = 1e-5
        numeric = (loss(start + step) - loss(start - step)).detach() / 2e-5
        assert math.isclose(float(gradient[k]), float(numeric), rel_tol=1e-3, abs_tol=1e-4)


@pytest.mark.parametrize("name", ["so2", "d3"])
def test_in_half_precision_a_kernel_about_any_axis_is_the_same_but_for_rounding(name: str) -> None:
    layer = _layer(name, "learned", Axis((1.0, 1.0, 0.0), learned=True)).float()
    volumes = torch.randn(1, layer.in_type.channels, 5, 5, 5, dtype=torch.float32)
    expected = layer(volumes)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(volumes)
    mixed.float().square().sum().backward()
    axis = layer.kernel.axis
    assert axis is not None
    assert axis.direction.grad is not None
    assert axis.direction.grad.isfinite().all()
    for found in (mixed, layer.bfloat16()(volumes.bfloat16())):
        assert (found.float() - expected).norm() < 0.02 * expected.norm()


def test_directions_without_a_rotation_are_refused() -> None:
    for direction in ((0.0, 0.0, 0.0), (0.0, 0.0, -1.0), (float("nan"), 0.0, 1.0)):
        with pytest.raises(ValueError, match=r"axis|-z"):
            Axis(direction)
    group = space_group("so3")
    type_ = FieldType(band_limited(group, 1), 1)
    with pytest.raises(ValueError, match="no axis to turn"):
        PartialConv3d(type_, type_, 3, make_density(group, "full", 1), axis=Axis())
