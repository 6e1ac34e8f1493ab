"""Equivariance of whole modules, tested by turning their inputs.

:mod:`parteq.core.measure` reads the symmetry of a layer off its kernel; this file asks what a module does with real
features, whatever it is made of: :func:`equivariance_error` compares f(h x) with h f(x) for one element, and
:func:`lie_derivative` is the same for an infinitesimal turn (Gruver et al., arXiv 2210.02984). Turns by 90° and mirrors
move pixels onto pixels and are exact; other turns are interpolated, and their error includes that of the interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from parteq.core.axis import Axis
from parteq.core.fields import FieldType
from parteq.core.groups import Element

__all__ = ["act", "assert_equivariant", "equivariance_error", "lie_derivative"]

Module = Callable[[Tensor], Tensor]


def act(features: Tensor, type: FieldType, element: Element, axis: Axis | None = None) -> Tensor:
    """Return h·f, (h·f)(x) = ρ(h) f(h⁻¹x), for features (batch, c, y, x), (batch, c, z, y, x) or (batch, c).

    A square or cubic grid is permuted where the element permutes it, and interpolated linearly (zeros beyond the
    border) where it does not. Groups about an axis act about ``axis``, by default z.

    Raises:
        ValueError: an axis for a group that has none, or a grid that is neither square nor cubic.
    """
    if len(set(features.shape[2:])) > 1:
        raise ValueError(f"a grid of {' × '.join(map(str, features.shape[2:]))} is not turned onto itself")
    if axis is not None and not type.group.about_axis:
        raise ValueError(f"{type.group} is not about an axis")
    rho = torch.from_numpy(type.representation(element)).to(features)
    fields = features.reshape(len(features), type.count, rho.shape[0], math.prod(features.shape[2:]))
    turned = torch.einsum("ab,nfbp->nfap", rho, fields).reshape(features.shape)
    dimension = features.dim() - 2
    if not turned.numel() or not dimension:
        return turned
    # The coordinates of torch's grids are (x, y[, z]) with y down in the plane, where the group's y points up.
    flip = np.diag([1.0, -1.0]) if dimension == 2 else np.eye(3)
    frame = np.eye(dimension) if axis is None else axis.rotation().detach().double().cpu().numpy()
    inverse = flip @ frame @ type.group.matrix(element).T @ frame.T @ flip
    # A signed permutation takes pixels to pixels: exact with the nearest pixel, up to rounding of coordinates.
    exact = bool(np.allclose(np.abs(inverse).max(axis=0), 1.0))
    affine = torch.from_numpy(np.concatenate([inverse, np.zeros((dimension, 1))], axis=1)).to(features.device)
    # In double precision: half tells the pixels of a large image no longer apart.
    grid = functional.affine_grid(affine.expand(len(features), -1, -1), list(features.shape), align_corners=False)
    mode = "nearest" if exact else "bilinear"
    return functional.grid_sample(turned.double(), grid, mode=mode, align_corners=False).to(features)


@torch.no_grad()
def equivariance_error(
    module: Module,
    in_type: FieldType,
    out_type: FieldType,
    features: Tensor,
    element: Element,
    axis: Axis | None = None,
) -> float:
    """Return ‖f(h·x) − h·f(x)‖ / ‖f(x)‖, 0 for an equivariant module.

    Args:
        module: maps features of ``in_type`` to features of ``out_type``.
        in_type: type of the input.
        out_type: type of the output; trivial for an invariant module.
        features: a batch of inputs on a square or cubic grid.
        element: h.
        axis: of a group about an axis, that of the module's layers; by default z.
    """
    output = module(features)
    difference = module(act(features, in_type, element, axis)) - act(output, out_type, element, axis)
    return float(difference.norm() / output.norm().clamp_min(torch.finfo(output.dtype).tiny))


def assert_equivariant(
    module: Module,
    in_type: FieldType,
    out_type: FieldType,
    features: Tensor,
    elements: list[Element],
    tolerance: float = 1e-4,
    axis: Axis | None = None,
) -> None:
    """Raise ``AssertionError``, naming the worst element, if the error at one of ``elements`` exceeds ``tolerance``."""
    errors = [equivariance_error(module, in_type, out_type, features, element, axis) for element in elements]
    worst = int(np.argmax(errors))
    if not errors[worst] <= tolerance:
        raise AssertionError(f"equivariance error {errors[worst]:.2e} above {tolerance:.0e} at {elements[worst]}")


@torch.no_grad()
def lie_derivative(module: Module, images: Tensor, step_in_degrees: float = 1.0) -> float:
    """Return the change of an output per radian that images (batch, channels, y, x) turn, relative to its norm.

    ‖f(R x) − f(R⁻¹ x)‖ / (2 δ ‖f(x)‖) for turns R by a small angle δ, by central differences; both images are
    interpolated alike, so the blur of interpolation cancels to first order.
    """
    angle = np.radians(step_in_degrees)
    outputs = []
    for sense in (angle, -angle):
        c, s = np.cos(sense), np.sin(sense)
        affine = torch.tensor([[c, -s, 0.0], [s, c, 0.0]], dtype=images.dtype, device=images.device)
        grid = functional.affine_grid(affine.expand(len(images), -1, -1), list(images.shape), align_corners=False)
        outputs.append(module(functional.grid_sample(images, grid, padding_mode="border", align_corners=False)))
    norm = module(images).norm().clamp_min(torch.finfo(images.dtype).tiny)
    return float((outputs[0] - outputs[1]).norm() / (2 * angle * norm))
