"""MobileNetV2 on fields (Sandler et al., arXiv 1801.04381), as in "A Data and Compute Efficient Design for
Limited-Resources Deep Learning" (Mohamed et al., arXiv 2004.09691)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from parteq.apps.histo.head import invariant_head
from parteq.core.builder import Builder, ResidualBlock
from parteq.core.fields import FieldType
from parteq.core.norm import FieldBatchNorm

__all__ = ["mobilenetv2"]

_CHANNELS = (10, 14, 18)
_BLOCKS = (1, 2, 2)
_EXPANSIONS = (1, 4, 4)
_LAST_CHANNELS = 64


def mobilenetv2(
    builder: Builder, images: FieldType, widths: Sequence[float]
) -> tuple[nn.Module, nn.Sequential, nn.Module]:
    """Return stem, stages and head.

    A 5×5 convolution; three stages of inverted residuals, with a pool between them; a 1×1 convolution onto many fields
    and one from these onto the invariant channels.

    Images are halved between the blocks and not inside of them, as strides do it there: fields are few there and not
    yet widened, so that both the pool and the block behind it take a quarter of the work.

    Args:
        builder: makes layers on the group.
        images: type of the images.
        widths: factor on the channels of each stage.
    """
    builder = replace(builder, function="relu6")
    channels = widths[0] * _CHANNELS[0]
    stem = builder.unit(images, builder.fields(channels, 1), 5)
    stages: list[nn.Module] = []
    for width, base, blocks, expansion in zip(widths, _CHANNELS, _BLOCKS, _EXPANSIONS, strict=True):
        stages += [builder.pool()] if stages else []
        for _ in range(blocks):
            stages.append(_inverted_residual(builder, channels, width * base, expansion))
            channels = width * base
    last, wide = builder.fields(channels, 1), builder.fields(widths[-1] * _LAST_CHANNELS, 1)
    head = nn.Sequential(*builder.unit(last, wide, 1), *invariant_head(builder, wide, 1))
    return stem, nn.Sequential(*stages), head


def _inverted_residual(builder: Builder, channels_in: float, channels_out: float, expansion: int) -> nn.Module:
    """Return a block that widens, convolves each field by itself and narrows again, without a rectifier at the end."""
    before, after = builder.fields(channels_in, 1), builder.fields(channels_out, 1)
    wide = builder.fields(expansion * channels_in, 1)
    body = nn.Sequential(
        *(builder.unit(before, wide, 1) if expansion > 1 else []),
        builder.depthwise(wide, 3),
        *builder.activate(wide),
        builder.convolve(wide, after, 1),
        FieldBatchNorm(after),
    )
    return ResidualBlock(body, nn.Identity(), nn.Identity()) if before.count == after.count else body
