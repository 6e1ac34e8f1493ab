"""Turns by quarters and mirrors of particles, drawn at random: images and poses alike, and exactly.

On the disc they permute frequencies: an image turned by M has at f what the image had at M⁻¹ f, conjugated where that
lies in the other half-plane. So do its contrast transfer function and its shift, and the pose becomes diag(M, det M) R.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from parteq.apps.cryoem.disc import Disc
from parteq.core.training import Augment, Batch, uniform

__all__ = ["quarter_turns_and_mirrors"]


def quarter_turns_and_mirrors(disc: Disc) -> Augment:
    """An augmentation of batches of `ParticleSamples`, by the eight elements of D4."""
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    mirror = torch.diag(torch.tensor([-1.0, 1.0]))
    turns = [torch.linalg.matrix_power(quarter, number) for number in range(4)]
    matrices = torch.stack([*turns, *(turn @ mirror for turn in turns)])
    cycles = (disc.frequencies * disc.box).round().long().cpu()
    place = {tuple(pair): index for index, pair in enumerate(cycles.tolist())}
    sources, conjugate = [], []
    for matrix in matrices:
        before = (cycles.float() @ matrix).round().long()  # M⁻¹ f, as rows
        other = [tuple(pair) not in place for pair in before.tolist()]
        before[torch.tensor(other)] *= -1
        sources.append([place[tuple(pair)] for pair in before.tolist()])
        conjugate.append(other)
    source, flipped = torch.tensor(sources), torch.tensor(conjugate)
    poses = torch.zeros(8, 3, 3)
    poses[:, :2, :2], poses[:, 2, 2] = matrices, torch.linalg.det(matrices)

    def turned(batch: Batch, keys: Int[Tensor, " batch"]) -> Batch:
        samples, transfer, rotations, shifts = batch
        chosen = (uniform(keys, 1)[:, 0] * 8).long()
        device = samples.device
        index, other = source.to(device)[chosen], flipped.to(device)[chosen]
        moved = samples.gather(1, index)
        return (
            torch.where(other, moved.conj(), moved),
            transfer.gather(1, index),
            poses.to(device)[chosen] @ rotations,
            (matrices.to(device)[chosen] @ shifts[:, :, None])[:, :, 0],
        )

    return turned
