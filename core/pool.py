"""Anti-aliased downsampling that keeps the symmetry of the pixel grid.

Every second sample of a smoothed signal is kept. On an odd edge the kept samples 0, 2, …, n − 1 are symmetric about the
centre with an odd filter, (1, 2, 1) / 4; on an even edge they fall between pixels with an even one, (1, 3, 3, 1) / 8.
Either way turns by 90° and mirrors commute with the pooling exactly, for images of any size, and other turns as far as
the filter suppresses aliasing (Zhang, arXiv 1904.11486).
"""

from __future__ import annotations

import math
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["AntiAliasedPool"]


class AntiAliasedPool(nn.Module):
    """Halve every spatial edge of (batch, channels, *grid), rounding odd edges up.

    Args:
        dimension: 2 for images, 3 for volumes.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension

    def forward(self, features: Tensor) -> Tensor:
        """Return the pooled features, edges ⌈n / 2⌉; beyond the border there are zeros."""
        filters = [_binomial(2 + (edge + 1) % 2, features) for edge in features.shape[2:]]
        kernel = reduce(lambda left, right: left[..., None] * right, filters)
        channels = features.shape[1]
        convolve = functional.conv2d if self.dimension == 2 else functional.conv3d
        return convolve(features, kernel.expand(channels, 1, *kernel.shape), stride=2, padding=1, groups=channels)


def _binomial(order: int, like: Tensor) -> Tensor:
    """Return the binomial coefficients of ``order``, scaled to sum to 1."""
    weights = [math.comb(order, k) / 2**order for k in range(order + 1)]
    return torch.tensor(weights, dtype=like.dtype, device=like.device)
