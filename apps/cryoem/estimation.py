"""Poses of a whole set of particles: what the encoder proposes, refined against the map, and the map they make.

Several processes share the particles, dealt out like cards; each ends with the poses of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from parteq.apps.cryoem.inference import PoseInference
from parteq.apps.cryoem.matching import Matching
from parteq.apps.cryoem.reconstruction import Reconstruction
from parteq.core.distributed import gather, rank, total, world_size
from parteq.core.training import read_batches
from parteq.datasets.cryoem.projection import phase_ramp

__all__ = ["Poses", "map_of_poses", "propose", "refine", "refine_with_map", "weigh"]

_BATCH = 256
_ROUNDS = 5

Data = Dataset[Any]
Progress = Callable[[int], object]


@dataclass(frozen=True)
class Poses:
    """Of each particle, on the CPU.

    Attributes:
        rotations: R, [N, 3, 3].
        shifts: where the centre stands, (x, y) in pixels of the disc, [N, 2].
        residuals: the mean |y − c s|² over the disc, [N].
    """

    rotations: Float[Tensor, "n 3 3"]
    shifts: Float[Tensor, "n 2"]
    residuals: Float[Tensor, " n"]


def propose(
    model: PoseInference,
    volume: Float[Tensor, "box box box"],
    data: Data,
    device: torch.device,
    progress: Progress = lambda count: None,
) -> Poses:
    """Of the poses that the encoder proposes those that fit the map best."""
    matching = Matching(volume.to(device), model.disc)

    def best(samples: Tensor, transfer: Tensor) -> tuple[Tensor, ...]:
        rotations, shifts = model.propose(samples, transfer)
        heads = range(rotations.shape[1])
        errors = torch.stack([matching.residuals(samples, transfer, rotations[:, h], shifts) for h in heads], 1)
        least, winner = errors.min(1)
        return rotations[torch.arange(len(winner), device=device), winner], shifts, least

    was_training = model.training
    model.to(device).eval()
    try:
        return Poses(*_each(best, data, device, progress))
    finally:
        model.train(was_training)


def refine(
    model: PoseInference,
    volume: Float[Tensor, "box box box"],
    data: Data,
    poses: Poses,
    device: torch.device,
    *,
    everywhere: bool = False,
    progress: Progress = lambda count: None,
) -> Poses:
    """Poses moved to where the map fits each image best.

    Args:
        model: for its disc.
        volume: the map, in units of the samples.
        data: the particles.
        poses: to begin with.
        device: where to compute.
        everywhere: begin also from the best of a grid over all rotations, and keep what fits better.
        progress: is told the number of particles done.
    """
    matching = Matching(volume.to(device), model.disc)

    def moved(samples: Tensor, transfer: Tensor, rotations: Tensor, shifts: Tensor) -> tuple[Tensor, ...]:
        starts = [rotations]
        if everywhere:
            starts.append(matching.search(samples, transfer, shifts))
        ends = []
        for start in starts:
            end = matching.refine(samples, transfer, start, shifts)
            ends.append((*end, matching.residuals(samples, transfer, *end)))
        if len(ends) == 1:
            return ends[0]
        second = ends[1][2] < ends[0][2]
        return tuple(torch.where(second.view(-1, *[1] * (a.ndim - 1)), b, a) for a, b in zip(*ends, strict=True))

    return Poses(*_each(moved, data, device, progress, poses.rotations, poses.shifts))


def map_of_poses(model: PoseInference, data: Data, poses: Poses, device: torch.device) -> Float[Tensor, "box box box"]:
    """The map, on the model's box and in units of the samples, of images at these poses."""
    reconstruction = Reconstruction(model.disc.box, device=device)

    def insert(samples: Tensor, transfer: Tensor, rotations: Tensor, shifts: Tensor) -> tuple[Tensor, ...]:
        unshifted = samples * phase_ramp(-shifts, model.disc.frequencies)
        reconstruction.insert_samples(model.disc.frequencies, unshifted * transfer, transfer.square(), rotations)
        return ()

    _each(insert, data, device, lambda count: None, poses.rotations, poses.shifts)
    reconstruction.sums = total(reconstruction.sums)
    return reconstruction.volume(0.05).cpu()


def refine_with_map(
    model: PoseInference, data: Data, poses: Poses, device: torch.device, rounds: int = _ROUNDS
) -> tuple[Poses, Float[Tensor, "box box box"]]:
    """Poses and the map they make, by turns: each is refined given the other; the first round looks everywhere."""
    volume = map_of_poses(model, data, poses, device)
    for number in range(rounds):
        poses = refine(model, volume, data, poses, device, everywhere=number < 2)
        volume = map_of_poses(model, data, poses, device)
    return poses, volume


def weigh(
    model: PoseInference, volume: Float[Tensor, "box box box"], data: Data, poses: Poses, device: torch.device
) -> Float[Tensor, " n"]:
    """How probable it is that each rotation is right to 15°, given the map; see `parteq.apps.cryoem.matching`."""
    matching = Matching(volume.to(device), model.disc)
    noise = max(float(poses.residuals.median()), 1e-6)

    def weight(samples: Tensor, transfer: Tensor, rotations: Tensor, shifts: Tensor) -> tuple[Tensor, ...]:
        return (matching.confidence(samples, transfer, rotations, shifts, noise),)

    return _each(weight, data, device, lambda count: None, poses.rotations, poses.shifts)[0]


@torch.no_grad()
def _each(
    function: Callable[..., tuple[Tensor, ...]], data: Data, device: torch.device, progress: Progress, *known: Tensor
) -> tuple[Tensor, ...]:
    """What a function makes of all particles, a batch at a time: of samples, transfer and rows of what is known."""
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
