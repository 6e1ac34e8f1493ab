"""Warps that leave the pixel grid: turns by any angle, and elastic deformation (Simard et al., ICDAR 2003).

Each pixel shows what was at some other position. A turn and a deformation are one such map, so that images are
interpolated, and thereby smoothed, once. Beyond the frame they go on as in a mirror. The slices of a volume are warped
alike.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from parteq.apps.histo.appearance import as_unit
from parteq.core.training import uniform

__all__ = ["displacements", "resample", "turned", "warp"]

NODES = 6
"""Nodes of the deformation along each side of the frame."""
SHIFT = 0.2
"""Nodes move by ± this share of their spacing, along each axis: too little for the image to fold."""

Images = Float[Tensor, "batch channels *spatial"]
Positions = Float[Tensor, "batch h w xy"]


def turned(degrees: Float[Tensor, " batch"], height: int, width: int) -> Positions:
    """Where each pixel of an image turned anticlockwise, as shown, comes from: x and y in pixels from the centre.

    The pixel at (x, y), y downwards, shows what was at (x cos a − y sin a, x sin a + y cos a).
    """
    cosine, sine = (part[:, None, None] for part in (degrees.deg2rad().cos(), degrees.deg2rad().sin()))
    y = torch.arange(height, device=degrees.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, device=degrees.device) - (width - 1) / 2
    return torch.stack([x * cosine - y * sine, x * sine + y * cosine], dim=-1)


def displacements(numbers: Float[Tensor, "batch xy rows columns"], height: int, width: int) -> Positions:
    """A smooth field of displacements in pixels, from numbers in ±1 at nodes: cubic in between.

    The first and last nodes are at the outermost pixels.
    """
    rows, columns = numbers.shape[-2:]
    spacing = torch.tensor([(width - 1) / (columns - 1), (height - 1) / (rows - 1)], device=numbers.device)
    field = interpolate(numbers, size=(height, width), mode="bicubic", align_corners=True)
    return SHIFT * spacing * field.movedim(1, -1)


def resample(images: Images, positions: Positions) -> Images:
    """Images that show at each pixel what was at a position, bilinearly."""
    slices = images.flatten(1, -3)
    height, width = images.shape[-2:]
    # grid_sample measures from the centre in half frames.
    grid = positions * (2 / torch.tensor([width, height], device=images.device))
    shown = grid_sample(slices, grid.to(images), "bilinear", "reflection", align_corners=False)
    return shown.view_as(images)


def warp(
    images: Shaped[Tensor, "batch channels *spatial"], keys: Int[Tensor, " batch"], *, turn: bool, elastic: bool
) -> Images:
    """Turns every other image by any angle, and deforms every other one; half of those that are turned as well."""
    numbers = uniform(keys, 3 + 2 * NODES**2)
    turning, deforming = (numbers[:, 0] < 0.5) & turn, (numbers[:, 1] < 0.5) & elastic
    chosen = turning | deforming
    degrees = torch.where(turning, 360 * numbers[:, 2], 0)[chosen]
    moved = torch.where(deforming[:, None], 2 * numbers[:, 3:] - 1, 0)[chosen].view(-1, 2, NODES, NODES)
    height, width = images.shape[-2:]
    positions = turned(degrees, height, width) + displacements(moved, height, width)
    warped = as_unit(images).clone()
    warped[chosen] = resample(warped[chosen], positions)
    return warped
