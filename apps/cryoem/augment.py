"""Particles altered at random in training: images and poses alike.

*Quarter turns and mirrors* permute the frequencies of the disc: an image turned by M has at f what the image had at
M⁻¹ f, conjugated where that lies in the other half-plane. So do its contrast transfer function and its shift, and the
pose becomes diag(M, det M) R. This is exact.

*Fresh poses* are for particles whose poses are known, and whose map therefore is. With s(R, t) the map's slice at the
pose R and the shift t, the image is y = c s(R, t) + n, and

    y' = c s(R', t') + e^(−2πi f·u) (y − c s(R, t))

is one of a particle at another pose (R', t'), with the contrast transfer function and the noise that the image has, the
latter moved about by a random u, so that no image is seen twice. R' and t' are those of another particle of the set,
turned in the plane by any angle and tilted by up to 15°: views that are preferred stay so.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from parteq.apps.cryoem.disc import Disc
from parteq.apps.cryoem.frames import turned_by_vector
from parteq.core.training import Augment, Batch, uniform
from parteq.datasets.cryoem.projection import fourier_slices, fourier_volume, phase_ramp

__all__ = ["fresh_poses", "quarter_turns_and_mirrors"]

_FRESH = 0.75  # share of the images that are put into another pose; the others are as they were taken
_TILT = math.radians(15)


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


def fresh_poses(
    disc: Disc,
    volume: Float[Tensor, "box box box"],
    rotations: Float[Tensor, "particles 3 3"],
    shifts: Float[Tensor, "particles 2"],
) -> Augment:
    """An augmentation of batches of `ParticleSamples`, three images in four, by putting particles into other poses.

    Args:
        disc: of the samples.
        volume: the map that the known poses make, in units of the samples.
        rotations: R of all particles.
        shifts: where their centres stand, (x, y) in pixels of the disc.
    """
    transform = fourier_volume(volume)

    def seen(transfer: Tensor, rotations: Tensor, shifts: Tensor) -> Tensor:
        slices = fourier_slices(transform.to(transfer.device), rotations, disc.frequencies)
        return transfer * slices * phase_ramp(shifts, disc.frequencies)

    def moved(batch: Batch, keys: Int[Tensor, " batch"]) -> Batch:
        samples, transfer, before, at = batch
        chance = uniform(keys, 7)
        other = (chance[:, 0] * len(rotations)).long().to(rotations.device)
        whole, around, reach = 2 * math.pi * chance[:, 1], 2 * math.pi * chance[:, 2], _TILT * chance[:, 3].sqrt()
        zero = torch.zeros_like(whole)
        turn = turned_by_vector(torch.eye(3, device=samples.device), torch.stack([zero, zero, whole], 1))
        tilt = torch.stack([reach * around.cos(), reach * around.sin(), zero], 1)
        after = turned_by_vector(turn @ rotations[other].to(samples.device), tilt)
        to = (turn[:, :2, :2] @ shifts[other].to(samples.device)[:, :, None])[:, :, 0]
        noise = samples - seen(transfer, before, at)
        image = seen(transfer, after, to) + noise * phase_ramp(disc.box * chance[:, 4:6], disc.frequencies)
        fresh = chance[:, 6] < _FRESH
        return (
            torch.where(fresh[:, None], image, samples),
            transfer,
            torch.where(fresh[:, None, None], after, before),
            torch.where(fresh[:, None], to, at),
        )

    return moved
