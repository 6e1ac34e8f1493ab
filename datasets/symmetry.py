"""Give images a known symmetry, to see whether a network finds it.

A turn is anticlockwise as the picture is shown (row 0 on top), about the centre of the frame. Quarter turns of a square
permute its pixels and are exact; other angles are bilinear.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

__all__ = ["SYMMETRIES", "Transformed", "UpOrDown", "apply_symmetry", "turn", "up_or_down"]

SYMMETRIES = ("none", "c2", "c4", "c8", "half", "any", "mirror", "d4", "within:45")
_CYCLIC = re.compile(r"([cd])([1-9]\d{0,2})")
_WITHIN = re.compile(r"within:(\d+(?:\.\d*)?)")
# Images resampled at a time.
_CHUNK = 1024


class Transformed(NamedTuple):
    """Images, and what was done to each: first mirrored left to right where `mirrored`, then turned by `degrees`."""

    images: Shaped[Tensor, "n c h w"]
    degrees: Float64[Tensor, " n"]
    mirrored: Bool[Tensor, " n"]


class UpOrDown(NamedTuple):
    """Images turned about upright or upside-down, their labels (class, up | down), and the turns."""

    images: Shaped[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    degrees: Float64[Tensor, " n"]


def _resample(
    images: Shaped[Tensor, "n c h w"], degrees: Float64[Tensor, " n"], fill: str
) -> Shaped[Tensor, "n c h w"]:
    """Turn by any angle, bilinearly.

    The pixel at (x, y) from the centre, y downwards, shows what was at (x cos a − y sin a, x sin a + y cos a);
    grid_sample measures both in half frames, hence the ratio of the sides.
    """
    height, width = images.shape[-2:]
    cosine, sine = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    zero = torch.zeros_like(sine)
    rows = (cosine, -sine * height / width, zero), (sine * width / height, cosine, zero)
    matrix = torch.stack([torch.stack(row, -1) for row in rows], -2)
    pixels = images if images.is_floating_point() else images.float()
    grid = affine_grid(matrix.to(pixels), list(images.shape), align_corners=False)
    turned = grid_sample(pixels, grid, "bilinear", "zeros" if fill == "zero" else "border", align_corners=False)
    return turned if images.is_floating_point() else turned.round().clamp(0, 255).to(images.dtype)


def turn(
    images: Shaped[Tensor, "n c h w"], degrees: float | Shaped[Tensor, "..."], *, fill: str = "zero"
) -> Shaped[Tensor, "n c h w"]:
    """Turn each image anticlockwise about the centre of its frame.

    Args:
        images: uint8 or float.
        degrees: one angle, or one for each image [n]. Multiples of 90° (of 180° where H ≠ W) move pixels exactly.
        fill: what is seen beyond the frame: "zero", or "edge", the nearest pixel. Pad images whose corners matter.

    Returns:
        Same shape and dtype.

    Raises:
        ValueError: an unknown fill, or angles that are not finite.
    """
    if fill not in ("zero", "edge"):
        raise ValueError(f"fill must be 'zero' or 'edge', not {fill!r}")
    angles = torch.as_tensor(degrees, dtype=torch.float64, device=images.device).expand(len(images))
    if not bool(torch.isfinite(angles).all()):
        raise ValueError("angles must be finite")
    quarters = torch.remainder(angles / 90, 4)
    square = images.shape[-1] == images.shape[-2]
    turned = torch.empty_like(images)
    exact = torch.zeros_like(angles, dtype=torch.bool)
    for quarter in range(4) if square else (0, 2):
        here = quarters == quarter
        turned[here] = torch.rot90(images[here], quarter, (-2, -1))
        exact |= here
    rest = torch.nonzero(~exact)[:, 0]
    for part in rest.split(_CHUNK) if len(rest) else ():
        turned[part] = _resample(images[part], angles[part], fill)
    return turned


def _draw(name: str, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random angles in degrees and mirrorings of the named symmetry."""
    mirrored = torch.zeros(count, dtype=torch.bool)
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    if name in ("mirror", "d1"):
        return torch.zeros_like(uniform), torch.rand(count, generator=generator) < 0.5
    if name == "none":
        return torch.zeros_like(uniform), mirrored
    if name == "half":
        return 90 * torch.floor(2 * uniform), mirrored
    if name == "any":
        return 360 * uniform, mirrored
    if found := _CYCLIC.fullmatch(name):
        if found[1] == "d":
            mirrored = torch.rand(count, generator=generator) < 0.5
        order = int(found[2])
        return 360 / order * torch.floor(order * uniform), mirrored
    if (found := _WITHIN.fullmatch(name)) and float(found[1]) <= 180:
        return float(found[1]) * (2 * uniform - 1), mirrored
    raise ValueError(f"unknown symmetry {name!r}: one of {SYMMETRIES}, cN, dN, or within:DEGREES up to 180")


def apply_symmetry(images: Shaped[Tensor, "n c h w"], name: str, seed: int) -> Transformed:
    """Transform each image by an element drawn at random from a set of turns and mirrorings.

    Args:
        images: uint8 or float.
        name: "none"; "cN", the N turns by multiples of 360°/N; "half", {0°, 90°}, which is no group; "any", all
            angles; "mirror", left to right in half of the images; "dN", "cN" with "mirror"; "within:W", angles
            uniform in ±W degrees.
        seed: equal seeds transform equally.

    Raises:
        ValueError: an unknown name.
    """
    degrees, mirrored = _draw(name, len(images), torch.Generator().manual_seed(seed))
    degrees, mirrored = degrees.to(images.device), mirrored.to(images.device)
    flipped = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return Transformed(turn(flipped, degrees), degrees, mirrored)


def up_or_down(
    images: Shaped[Tensor, "n c h w"], labels: Int64[Tensor, " n"], width_degrees: float, seed: int
) -> UpOrDown:
    """The task whose symmetry is a range: tell the class, and whether the image is upright or upside-down.

    Half of the images, at random, are turned upside-down; all are then turned by a uniform angle within ±width. A
    network may ignore turns up to 90° − width (beyond which a turned "up" is nearer to "down"), and no more.

    Args:
        images: uint8 or float, upright.
        labels: class numbers, from 0.
        width_degrees: 0 to 90.
        seed: equal seeds transform equally.

    Returns:
        Labels 2·class + (1 if upside-down), named "0 up", "0 down", "1 up", …

    Raises:
        ValueError: a width outside 0…90.
    """
    if not 0 <= width_degrees <= 90:
        raise ValueError(f"the width must lie in 0…90 degrees, not be {width_degrees}")
    generator = torch.Generator().manual_seed(seed)
    down = torch.randperm(len(images), generator=generator) % 2
    spread = 2 * torch.rand(len(images), generator=generator, dtype=torch.float64) - 1
    degrees = (180.0 * down + width_degrees * spread).to(images.device)
    count = int(labels.max()) + 1
    classes = tuple(f"{number} {side}" for number in range(count) for side in ("up", "down"))
    return UpOrDown(turn(images, degrees), 2 * labels + down.to(labels.device), classes, degrees)
