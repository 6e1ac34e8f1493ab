"""From an image to a pose: an encoder equivariant under turns and mirrors of the image, as far as is asked.

Convolutions on fields halve the image until a last one sees all of it, so that what it gives is about the middle of the
image. Its output holds fields of two kinds (see `parteq.apps.cryoem.frames`): for each *head*, a candidate of the pose,
two columns of R, each [vector] ⊕ [sign of a mirror]; and one vector, where the particle's centre stands.

"A turned image gives a turned pose" is then true before anything is learned (de Ruijter and Cesa, arXiv 2406.01630):
exactly so by quarters of a turn and by mirrors for C4 and D4, as far as the pixels allow for SO(2) and O(2). With
``degree`` "learned" each layer may break it, and ``encoder`` "cnn" is an ordinary network of as many weights.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from parteq.core.builder import Builder
from parteq.core.fields import FieldType, Representation, representation
from parteq.core.groups import Element, FloatArray, SymmetryGroup, plane_group
from parteq.core.layers import PartialLinear

__all__ = ["ENCODERS", "PoseEncoder"]

ENCODERS = {"d4": "d4", "c4": "c4", "so2": "so2", "o2": "o2", "cnn": "none"}
"""The group of each encoder offered by name."""

_CHANNELS = (12, 24, 36, 48)
_SHIFT_SHARE = 0.02  # of the box: how far a shift of one is


class PoseEncoder(nn.Module):
    """Candidates of the pose of each image.

    Args:
        encoder: ``d4``, ``c4``, ``so2``, ``o2`` or ``cnn``.
        degree: how much of the group's symmetry: ``learned``, ``full`` or ``none``.
        box: rows and columns of the images.
        heads: candidates of the rotation for each image.
        width: factor on the number of channels.

    Raises:
        ValueError: no such encoder or degree, or a box below 8.
    """

    signs: Tensor

    def __init__(self, encoder: str, degree: str, box: int, heads: int, width: float = 1.0) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"unknown encoder {encoder!r}: use {', '.join(ENCODERS)}")
        if box < 8:
            raise ValueError(f"images of {box} pixels are too small: at least 8")
        builder = Builder(plane_group(ENCODERS[encoder]), degree)
        self.box, self.heads = box, heads
        # Turns about the middle stay exact where the kernel's edge is even or odd as the image's is.
        first = builder.fields(width * _CHANNELS[0])
        layers: list[nn.Module] = [
            builder.unit(builder.invariants(1), first, 6 - box % 2, stride=2, padding=2),
        ]
        before, size = first, (box + 1) // 2
        for channels in _CHANNELS[1:]:
            after = builder.fields(width * channels)
            layers.append(builder.unit(before, after, 3))
            if size > 4:
                layers.append(builder.pool())
                size = (size + 1) // 2
            before = after
        while size > 5:
            layers += [builder.unit(before, before, 3), builder.pool()]
            size = (size + 1) // 2
        self.whole = nn.Sequential(*layers, builder.unit(before, before, size, padding=0), nn.Flatten())
        self.mixed = nn.Sequential(
            PartialLinear(before, before, builder.density()), nn.Unflatten(1, (-1, 1, 1)), builder.nonlinearity(before)
        )
        columns = FieldType(_columns(builder.group), 2 * heads)
        self.columns = PartialLinear(before, columns, builder.density())
        self.shift = PartialLinear(before, FieldType(_vector(builder.group), 1), builder.density())
        nn.init.zeros_(self.shift.kernel.weight)
        # In the core y points up, in images to rows of higher index.
        self.register_buffer("signs", torch.tensor([1.0, -1.0, 1.0]), persistent=False)

    def forward(self, images: Float[Tensor, "n box box"]) -> tuple[Float[Tensor, "n heads 2 3"], Float[Tensor, "n 2"]]:
        """Two columns of the rotation for each head, and where the centre stands, (x, y) in pixels."""
        features = self.whole(images[:, None])
        features = features + self.mixed(features).flatten(1)
        columns = self.columns(features).view(len(images), self.heads, 2, 3) * self.signs
        shift = self.shift(features) * self.signs[:2] * (_SHIFT_SHARE * self.box)
        return columns, shift


def _vector(group: SymmetryGroup) -> Representation:
    return representation("vector", group, group.matrix, 2, band=1)


def _columns(group: SymmetryGroup) -> Representation:
    def column(element: Element) -> FloatArray:
        matrix = np.eye(3)
        matrix[:2, :2] = group.matrix(element)
        matrix[2, 2] = np.linalg.det(matrix[:2, :2])
        return matrix

    return representation("column", group, column, 3, band=1)
