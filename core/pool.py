"""Anti-aliased downsampling that keeps the symmetry of the pixel grid.

Every second sample of a smoothed signal is kept. On an odd edge the kept samples 0, 2, …, n − 1 are symmetric about the
centre with an odd filter, (1, 2, 1) / 4; on an even edge they fall between pixels with an even one, (1, 2, 2, 1) / 6.
Either way turns by 90° and mirrors commute with the pooling exactly, for images of any size, and other turns as far as
the filter suppresses aliasing (Zhang, arXiv 1904.11486).
"""

from __future__ import annotations

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
        self._average = functional.avg_pool2d if dimension == 2 else functional.avg_pool3d

    def forward(self, features: Tensor) -> Tensor:
        """Return the pooled features, edges ⌈n / 2⌉; borders are continued by their last sample."""
        smoothing = [2 if edge % 2 else 3 for edge in features.shape[2:]]
        padded = functional.pad(features, [1] * (2 * self.dimension), mode="replicate")
        return self._average(self._average(padded, smoothing, stride=1), 2, stride=2)
