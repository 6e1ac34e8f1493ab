"""DenseNet on fields (Huang et al., arXiv 1608.06993), as in "Rotation Equivariant CNNs for Digital Pathology" (Veeling
et al., arXiv 1806.03962)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parteq.apps.histo.head import invariant_head
from parteq.core.builder import Builder
from parteq.core.fields import FieldType

__all__ = ["densenet"]

_GROWTH = 6
_LAYERS = 3
_COMPRESSION = 0.5


class DenseLayer(nn.Module):
    """Appends to its input what a body makes of it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, c, *grid) to (batch, c + growth, *grid)."""
        return torch.cat([features, self.body(features)], dim=1)


def densenet(
    builder: Builder, images: FieldType, widths: Sequence[float]
) -> tuple[nn.Module, nn.Sequential, nn.Module]:
    """Return stem, stages and head.

    A 5×5 convolution and a pool; three dense blocks of three layers (norm, rectifier, 3×3 convolution), each layer
    seeing all before it in the block; between blocks a 1×1 convolution onto half the fields, and a pool.

    Args:
        builder: makes layers on the group.
        images: type of the images.
        widths: factor on the fields that each layer of a stage appends.
    """
    channels = 2 * widths[0] * _GROWTH
    last = builder.fields(channels)
    stem = nn.Sequential(builder.convolve(images, last, 5), builder.pool())
    stages: list[nn.Module] = []
    for stage, width in enumerate(widths):
        if stage:
            channels *= _COMPRESSION
            narrow = builder.fields(channels)
            stages += [*builder.activate(last), builder.convolve(last, narrow, 1), builder.pool()]
            last = narrow
        for _ in range(_LAYERS):
            channels += width * _GROWTH
            # Of the fields so far, so that what is rounded off in one layer is made up for in the next.
            growth = FieldType(last.representation, max(1, builder.fields(channels).count - last.count))
            stages.append(DenseLayer(nn.Sequential(*builder.activate(last), builder.convolve(last, growth, 3))))
            last = FieldType(last.representation, last.count + growth.count)
    head = nn.Sequential(*builder.activate(last), *invariant_head(builder, last, 3))
    return stem, nn.Sequential(*stages), head
