"""Equal weights made equal to the last bit.

Where a group permutes both the channels of a layer and the pixels of its kernel, an equivariant kernel repeats every
weight over its orbit,

    W[h·o, h·i](h·x)  =  W[o, i](x)      for all h,

but the sums that compute it round differently along an orbit. Integers make nothing of that, except where a weight lies
between two of them: one such weight in a quantised network and its invariance is only approximate. :func:`tied` writes
the first weight of each orbit to all of it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parteq.core.fields import Representation
from parteq.core.filters import grid_points
from parteq.core.groups import Element, FloatArray
from parteq.core.layers import PartialLayer

__all__ = ["tied"]

_ROUNDING = 1e-5  # of the largest weight: what sums in float32 may differ by, far less than any degree that is learned


def tied(weight: Tensor, layer: PartialLayer) -> Tensor:
    """Return the weight of a layer's plain twin, equal along the orbits of those elements that permute pixels.

    Weights that are not equivariant under these elements are returned as they are, and so are those between fields
    whose channels the group mixes and those of filters that are no pixels.

    Args:
        weight: (c_out, c_in / groups, *grid).
        layer: says how the group acts on it.
    """
    kernel = layer.kernel
    rho_out, rho_in, group = kernel.out_type.representation, kernel.in_type.representation, kernel.density.group
    pixels = weight.shape[1] == kernel.in_type.channels // kernel.groups
    if group.continuous or not (pixels and rho_out.permutes and rho_in.permutes):
        return weight
    blocks = weight.view(kernel.out_type.count, rho_out.size, -1, rho_in.size, *weight.shape[2:]).movedim(2, 1)
    flat = blocks.flatten(2)
    first = _first_of_orbit(rho_out, rho_in, round(weight[0, 0].numel() ** (1 / group.dimension)))
    equal = flat[..., torch.from_numpy(first).to(flat.device)]
    if (equal - flat).abs().max() > _ROUNDING * flat.abs().max():
        return weight
    return equal.view_as(blocks).movedim(1, 2).reshape_as(weight)


def _first_of_orbit(rho_out: Representation, rho_in: Representation, edge: int) -> NDArray[np.int64]:
    """Return for each weight between two fields, flattened [o, i, x], the first one in its orbit."""
    group = rho_out.group
    points = grid_points(edge, group.dimension)
    shape = (rho_out.size, rho_in.size, len(points))
    moved = []
    for element in group.algebra.elements:
        pixels = _moved_pixels(group.matrix(element), points)
        if pixels is not None:
            index = np.ix_(_moved_channels(rho_out, element), _moved_channels(rho_in, element), pixels)
            moved.append(np.ravel_multi_index(index, shape).ravel())
    first: NDArray[np.int64] = np.min(moved, axis=0)
    return first


def _moved_channels(rho: Representation, element: Element) -> NDArray[np.int64]:
    """Return where an element puts each component of a representation that permutes them."""
    target: NDArray[np.int64] = rho(element).round().argmax(axis=0)
    return target


def _moved_pixels(matrix: FloatArray, points: FloatArray) -> NDArray[np.int64] | None:
    """Return the index of the pixel to which a matrix moves each, or ``None`` where one falls between pixels."""
    distances = np.abs((points @ matrix.T)[:, None] - points).sum(axis=-1)
    nearest: NDArray[np.int64] = distances.argmin(axis=1)
    return nearest if distances.min(axis=1).max() < 1e-9 else None
