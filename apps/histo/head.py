"""The invariant head that all architectures end in."""

from __future__ import annotations

from torch import nn

from parteq.core.builder import Builder
from parteq.core.fields import FieldType

__all__ = ["INVARIANT_CHANNELS", "invariant_head"]

INVARIANT_CHANNELS = 32
"""Its width, whatever that of the network."""


def invariant_head(builder: Builder, before: FieldType, size: int) -> nn.Sequential:
    """Return a convolution onto invariant channels, a norm and a rectifier."""
    return builder.unit(before, builder.invariants(INVARIANT_CHANNELS), size)
