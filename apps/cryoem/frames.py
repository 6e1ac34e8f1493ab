"""Rotations out of the two columns that a network predicts.

In the convention of `parteq.datasets.cryoem.poses` a turn of the image by α makes the pose Rz(α) R, and its mirror
image x → −x has the pose Ry(π) R = diag(−1, 1, −1) R. So each column of R, (x, y, z), is a vector of the plane and a
number that changes sign under mirrors, and nothing mixes the columns: a network may predict two of them, equivariantly,
and the Gram-Schmidt process, which commutes with rotations, makes a rotation of them (Zhou et al., arXiv 1812.07035).
Quaternions would change sign under a whole turn, and could not be fields at all.
"""

from __future__ import annotations

import roma
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["rotations_of_frames", "turned_by_vector"]

_PARALLEL = 1e-4


def rotations_of_frames(frames: Float[Tensor, "*n 2 3"]) -> Float[Tensor, "*n 3 3"]:
    """Rotations whose first column points along the first vector, their second into the half-plane of the second.

    An image with a mirror line has parallel columns under an equivariant network, since both must stay where the mirror
    takes them. There, and where a vector vanishes, an axis of the frame stands in, so that the result is a rotation and
    its gradient finite.
    """
    axes = torch.eye(3, dtype=frames.dtype, device=frames.device)
    first = _unit(frames[..., 0, :], axes[0].expand_as(frames[..., 0, :]))
    second = frames[..., 1, :]
    across = second - (first * second).sum(-1, keepdim=True) * first
    # Of the axes that which is farthest from the first column.
    spare = axes[first.detach().abs().argmin(-1)]
    spare = spare - (first * spare).sum(-1, keepdim=True) * first
    usable = across.norm(dim=-1, keepdim=True) > _PARALLEL * second.norm(dim=-1, keepdim=True)
    second = _unit(torch.where(usable, across, spare), spare)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def _unit(vectors: Float[Tensor, "*n 3"], instead: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """Vectors of length 1 in the same directions; others ``instead`` of those that are all but zero."""
    usable = vectors.square().sum(-1, keepdim=True) > torch.finfo(vectors.dtype).tiny
    kept = torch.where(usable, vectors, instead)
    return kept / kept.norm(dim=-1, keepdim=True)


def turned_by_vector(rotations: Float[Tensor, "*n 3 3"], vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """exp(ω) R for rotation vectors ω, in radians."""
    turned: Tensor = roma.rotvec_to_rotmat(vectors) @ rotations
    return turned
