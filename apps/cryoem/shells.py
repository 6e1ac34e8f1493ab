"""The shells of a disc: frequencies of about the same length, over which power is averaged."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from parteq.apps.cryoem.disc import Disc

__all__ = ["Shells"]


class Shells:
    """Shells of whole numbers of cycles a box.

    Args:
        disc: of the frequencies.
        device: where values are.
    """

    def __init__(self, disc: Disc, device: torch.device) -> None:
        self._shell = (disc.frequencies * disc.box).norm(dim=1).round().long().to(device)

    def means(self, values: Float[Tensor, "*n f"]) -> Float[Tensor, "*n shells"]:
        """The mean of each shell, of the first F frequencies."""
        shell = self._shell[: values.shape[-1]]
        sums = values.new_zeros(*values.shape[:-1], int(self._shell[-1]) + 1).index_add_(-1, shell, values)
        return sums / torch.bincount(shell, minlength=sums.shape[-1]).clamp_min(1)

    def spread(self, means: Float[Tensor, " shells"]) -> Float[Tensor, " f"]:
        """At each frequency of the disc the mean of its shell."""
        return means[self._shell]
