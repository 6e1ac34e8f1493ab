"""A small residual network on fields (He et al., arXiv 1512.03385)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from parteq.apps.histo.head import invariant_head
from parteq.core.builder import Builder, ResidualBlock
from parteq.core.fields import FieldType
from parteq.core.norm import FieldBatchNorm

__all__ = ["resnet"]

_CHANNELS = (10, 13, 16)


def resnet(builder: Builder, images: FieldType, widths: Sequence[float]) -> tuple[nn.Module, nn.Sequential, nn.Module]:
    """Return stem, stages and head: a 5×5 convolution, three blocks of two 3×3 with a pool after each, one 3×3.

    Args:
        builder: makes layers on the group.
        images: type of the images.
        widths: factor on the channels of each stage.
    """
    types = [builder.fields(width * channels) for width, channels in zip(widths, _CHANNELS, strict=True)]
    stem = builder.unit(images, types[0], 5)
    stages: list[nn.Module] = []
    for before, after in zip([types[0], *types], types, strict=False):
        stages += [_block(builder, before, after), builder.pool()]
    head = invariant_head(builder, types[-1], 3)
    return stem, nn.Sequential(*stages), head


def _block(builder: Builder, before: FieldType, after: FieldType) -> ResidualBlock:
    """Return two convolutions and a shortcut, which is the identity where the types agree."""
    body = nn.Sequential(*builder.unit(before, after, 3), builder.convolve(after, after, 3), FieldBatchNorm(after))
    same = before.count == after.count and before.representation is after.representation
    shortcut = nn.Identity() if same else nn.Sequential(builder.convolve(before, after, 1), FieldBatchNorm(after))
    return ResidualBlock(body, shortcut, builder.nonlinearity(after))
