"""Passes over particles, all or some, a batch at a time, shared by all processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from parteq.core.distributed import gather, rank, world_size
from parteq.core.training import read_batches

__all__ = ["Data", "Progress", "each_batch", "some_of"]

_BATCH = 256

Data = Dataset[Any]
"""Particles, as `parteq.apps.cryoem.samples` has them."""
Progress = Callable[[int], object]
"""Is told the number of particles done."""


@torch.no_grad()
def each_batch(
    function: Callable[..., tuple[Tensor, ...]],
    data: Data,
    device: torch.device,
    *known: Tensor,
    progress: Progress = lambda count: None,
) -> tuple[Tensor, ...]:
    """What a function makes of all particles, row for row, on the CPU.

    Several processes share the particles, dealt out like cards; each ends with what all have found.

    Args:
        function: of the samples and contrast transfer functions of a batch, and of rows of what is known.
        data: the particles.
        device: where to compute.
        known: tensors with a row for each particle.
        progress: see `Progress`.
    """
    count = len(data)  # type: ignore[arg-type]
    mine = torch.arange(rank(), count, world_size())
    results: list[tuple[Tensor, ...]] = []
    parts = list(torch.tensor_split(mine, max(1, math.ceil(len(mine) / _BATCH))))
    for part, batch in zip(parts, read_batches(data, parts), strict=True):
        rows = (tensor[part].to(device) for tensor in known)
        found = function(batch[0].to(device), batch[1].to(device), *rows)
        results.append(tuple(tensor.cpu() for tensor in found))
        progress(len(part))
    return tuple(gather(torch.cat(tensors), count) for tensors in zip(*results, strict=True))


def some_of(data: Data, indices: Int[Tensor, " some"]) -> Data:
    """Some of the particles; in memory if all are."""
    if isinstance(data, TensorDataset):
        return TensorDataset(*(tensor[indices] for tensor in data.tensors))
    return Subset(data, indices.tolist())
