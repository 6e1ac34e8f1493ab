"""Turning clouds: the rotations that training adds and evaluation asks about."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from parteq.datasets.errors import DataError

__all__ = ["draw_rotations", "draw_tilts", "parse_rotation", "rotate"]

Draw = Callable[[int, torch.Generator], Tensor]


def parse_rotation(text: str) -> Draw:
    """What draws rotations of a kind: called with a count and a generator, float32 [count, 3, 3].

    Args:
        text: "none"; "z", turned about z by any angle; "so3", uniformly distributed; "tilt:30", turned by 30° about a
            horizontal axis, which any direction may be.

    Raises:
        DataError: none of these.
    """
    kind, colon, angle = text.partition(":")
    if kind == "tilt" and colon:
        try:
            degrees = float(angle)
        except ValueError:
            degrees = math.nan
        if math.isfinite(degrees):
            return partial(draw_tilts, degrees)
    elif kind in ("none", "z", "so3") and not colon:
        return partial(draw_rotations, kind)
    raise DataError(f"rotation {text!r}", "is none of none, z, so3 and tilt:DEGREES")


def draw_rotations(kind: str, count: int, generator: torch.Generator) -> Float[Tensor, "count 3 3"]:
    """Draw rotations; on the CPU, so that a seed means the same everywhere.

    Args:
        kind: "none", "z" or "so3", see `parse_rotation`.
        count: how many.
        generator: draws them.
    """
    if kind == "none":
        return torch.eye(3).repeat(count, 1, 1)
    if kind == "z":
        angles = 2 * math.pi * torch.rand(count, generator=generator)
        return roma.rotvec_to_rotmat(angles[:, None] * torch.tensor([0.0, 0.0, 1.0]))
    # A normal vector in four dimensions has any direction alike, and unit quaternions cover rotations evenly.
    quaternions = torch.randn(count, 4, generator=generator)
    return roma.unitquat_to_rotmat(torch.nn.functional.normalize(quaternions, dim=1))


def draw_tilts(angle_in_degrees: float, count: int, generator: torch.Generator) -> Float[Tensor, "count 3 3"]:
    """Draw rotations by this angle about horizontal axes, whose directions are uniformly distributed."""
    directions = 2 * math.pi * torch.rand(count, generator=generator)
    axes = torch.stack([directions.cos(), directions.sin(), torch.zeros(count)], 1)
    return roma.rotvec_to_rotmat(math.radians(angle_in_degrees) * axes)


def rotate(
    vectors: Float[Tensor, "n 3"], rotations: Float[Tensor, "b 3 3"], index: Int[Tensor, " n"]
) -> Float[Tensor, "n 3"]:
    """Turn every cloud of a batch by its rotation: v → R v.

    Args:
        vectors: positions, or other vectors that turn with them.
        rotations: of each cloud.
        index: cloud of each vector.
    """
    matrices = rotations.to(vectors)[index]
    return torch.einsum("nij,nj->ni", matrices, vectors)
