"""Poses of a whole set of particles: what the encoder proposes, refined against the map, and the map they make."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import roma
import torch
from jaxtyping import Float, Int
from scipy import ndimage
from torch import Tensor

from parteq.apps.cryoem.expectation import expectation_maximisation
from parteq.apps.cryoem.frames import turned_by_vector
from parteq.apps.cryoem.inference import PoseInference
from parteq.apps.cryoem.matching import Matching
from parteq.apps.cryoem.passes import Data, Progress, each_batch
from parteq.apps.cryoem.placement import Placement
from parteq.apps.cryoem.reconstruction import Reconstruction
from parteq.apps.cryoem.shells import Shells
from parteq.apps.cryoem.symmetry_axes import NO_SYMMETRY, SymmetryFrame, find_axes
from parteq.core.distributed import total
from parteq.datasets.cryoem.projection import phase_ramp

__all__ = [
    "MOVES",
    "Poses",
    "map_of_poses",
    "misfit",
    "noise_left",
    "propose",
    "refine",
    "refine_proposed",
    "refine_with_map",
    "weigh",
]

MOVES = 2
"""Steps of the grid of shifts where a map may stand elsewhere in its box than that of the encoder."""

_ROUNDS = 10
_MOMENTUM = 0.7
_JUMP, _STILL = math.radians(10), math.radians(0.2)


@dataclass(frozen=True)
class Poses:
    """Of each particle, on the CPU.

    Attributes:
        rotations: R, [N, 3, 3].
        shifts: where the centre stands, (x, y) in pixels of the disc, [N, 2].
    """

    rotations: Float[Tensor, "n 3 3"]
    shifts: Float[Tensor, "n 2"]

    def towards(self, others: Poses) -> Float[Tensor, "n 5"]:
        """Rotation vectors ω and moves that lead to others, exp(ω) R."""
        return torch.cat([roma.rotmat_to_rotvec(others.rotations @ self.rotations.mT), others.shifts - self.shifts], 1)

    def moved(self, change: Float[Tensor, "n 5"]) -> Poses:
        """Poses changed by rotation vectors and moves."""
        return Poses(turned_by_vector(self.rotations, change[:, :3]), self.shifts + change[:, 3:])

    def in_true_frame(self, placement: Placement) -> Poses:
        """Poses of a map as poses of that from which it is seen so; the offset in pixels of the disc."""
        rotations, shifts = (values.double().numpy() for values in (self.rotations, self.shifts))
        moved = placement.rotations_in_true_frame(rotations), placement.shifts_in_true_frame(rotations, shifts)
        return Poses(*(torch.from_numpy(values).float() for values in moved))

    def subset(self, indices: Int[Tensor, " some"]) -> Poses:
        """Those of some of the particles."""
        return Poses(self.rotations[indices], self.shifts[indices])


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
        winner = errors.argmin(1)
        return rotations[torch.arange(len(winner), device=device), winner], shifts

    was_training = model.training
    model.to(device).eval()
    try:
        return Poses(*each_batch(best, data, device, progress=progress))
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
    moves: int = 0,
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
        moves: of the shifts of that grid, see :meth:`~parteq.apps.cryoem.matching.Matching.search`: where a map may
            stand elsewhere in its box than that for which the shifts were found.
        progress: is told the number of particles done.
    """
    matching = Matching(volume.to(device), model.disc)

    def moved(samples: Tensor, transfer: Tensor, rotations: Tensor, shifts: Tensor) -> tuple[Tensor, ...]:
        starts = [(rotations, shifts)]
        if everywhere:
            starts.append(matching.search(samples, transfer, shifts, moves))
        ends = [matching.refine(samples, transfer, *start) for start in starts]
        if len(ends) == 1:
            return ends[0]
        first, second = (matching.residuals(samples, transfer, *end) for end in ends)
        better = second < first
        return tuple(torch.where(better.view(-1, *[1] * (a.ndim - 1)), b, a) for a, b in zip(*ends, strict=True))

    return Poses(*each_batch(moved, data, device, poses.rotations, poses.shifts, progress=progress))


def refine_proposed(
    model: PoseInference,
    volume: Float[Tensor, "box box box"],
    data: Data,
    proposed: Poses,
    placement: Placement,
    device: torch.device,
) -> Poses:
    """Poses in the frame of a map, searched for over all rotations, from what an encoder proposes in its own.

    The search is in the map moved to have the encoder's centre at its origin: about that the shifts that are proposed
    are right, also where the rotations are not.

    Args:
        model: for its disc.
        volume: the map, in units of the samples.
        data: the particles.
        proposed: poses of them.
        placement: where the encoder's own map stands, as seen from that map; in pixels of the disc.
        device: where to compute.
    """
    moved = ndimage.fourier_shift(np.fft.fftn(volume.numpy()), -placement.offset[::-1])
    centred = torch.from_numpy(np.fft.ifftn(moved).real).float()
    turned = proposed.in_true_frame(Placement(placement.matrix, np.zeros(3)))
    found = refine(model, centred, data, turned, device, everywhere=True, moves=MOVES)
    return refine(model, volume, data, found.in_true_frame(Placement(np.eye(3), placement.offset)), device)


def map_of_poses(
    model: PoseInference, data: Data, poses: Poses, device: torch.device, frame: SymmetryFrame = NO_SYMMETRY
) -> Float[Tensor, "box box box"]:
    """The map, on the model's box and in units of the samples, of images at these poses and their symmetry copies."""
    reconstruction = Reconstruction(model.disc.box, device=device)
    frequencies = model.disc.frequencies
    copies = list(zip(frame.turns.to(device), frame.moves.to(device), strict=True))

    def insert(samples: Tensor, transfer: Tensor, rotations: Tensor, shifts: Tensor) -> tuple[Tensor, ...]:
        for turn, move in copies:
            unshifted = samples * phase_ramp(-shifts - (rotations @ move)[:, :2], frequencies)
            reconstruction.insert_samples(frequencies, unshifted * transfer, transfer.square(), rotations @ turn)
        return ()

    each_batch(insert, data, device, poses.rotations, poses.shifts)
    reconstruction.sums = total(reconstruction.sums)
    return reconstruction.volume(0.05).cpu()


def refine_with_map(
    model: PoseInference,
    data: Data,
    poses: Poses,
    device: torch.device,
    symmetry: str = "C1",
    rounds: int = _ROUNDS,
) -> tuple[Poses, Float[Tensor, "box box box"], SymmetryFrame]:
    """Poses, the map they make and its axes: first all rotations are weighed, then poses and map refined by turns.

    Of the poses given only the map that they make at low resolution and the shifts are gone on from. A map that is
    bent, as a coarse grid bends it where views are uneven, holds poses to its bends, and they it: by turns alone both
    would take dozens of rounds to straighten. So the map of a round is made of poses that go on in the direction in
    which they went before (Nesterov's momentum). It ends once half of the poses stand still. The axes of a symmetric
    particle are looked for once, after the weighing; from then on the map has its symmetry about them, whether it had
    it before (`SymmetryFrame.found`) or not: then it is too late to ask.
    """
    volume = map_of_poses(model, data, poses, device)
    poses = Poses(*expectation_maximisation(model.disc, volume, data, poses.shifts, device))
    frame = find_axes(map_of_poses(model, data, poses, device).numpy(), symmetry)
    ahead = poses
    for number in range(rounds):
        volume = map_of_poses(model, data, ahead, device, frame)
        before, poses = poses, refine(model, volume, data, ahead, device)
        change = before.towards(poses)
        turned = change[:, :3].norm(dim=1, keepdim=True)
        if turned.median() < _STILL:
            break
        # The first step leads off the grid, and a jump elsewhere, but nowhere on.
        ahead = poses.moved(_MOMENTUM * change * (turned < _JUMP)) if number else poses
    return poses, map_of_poses(model, data, poses, device, frame), frame


def misfit(
    model: PoseInference, volume: Float[Tensor, "box box box"], data: Data, poses: Poses, device: torch.device
) -> float:
    """What a map leaves of the images at these poses: the mean over images and frequencies of |y − c s|²."""
    matching = Matching(volume.to(device), model.disc)

    def left(samples: Tensor, transfer: Tensor, rotations: Tensor, shifts: Tensor) -> tuple[Tensor, ...]:
        return (matching.residuals(samples, transfer, rotations, shifts),)

    return float(each_batch(left, data, device, poses.rotations, poses.shifts)[0].mean())


def noise_left(
    model: PoseInference, volume: Float[Tensor, "box box box"], data: Data, poses: Poses, device: torch.device
) -> Float[Tensor, " f"]:
    """σ², the variance of a sample at each frequency: what a map leaves of the images at these poses, by shells."""
    matching, shells = Matching(volume.to(device), model.disc), Shells(model.disc, device)

    def leave(samples: Tensor, transfer: Tensor, rotations: Tensor, shifts: Tensor) -> tuple[Tensor, ...]:
        return (shells.means(matching.missing(samples, transfer, rotations, shifts).abs().square()),)

    (left,) = each_batch(leave, data, device, poses.rotations, poses.shifts)
    return shells.spread(left.mean(0).to(device)).clamp_min(1e-6)


def weigh(
    model: PoseInference,
    volume: Float[Tensor, "box box box"],
    data: Data,
    poses: Poses,
    device: torch.device,
    frame: SymmetryFrame = NO_SYMMETRY,
    noise: Float[Tensor, " f"] | None = None,
) -> Float[Tensor, " n"]:
    """How probable it is that each rotation is right to 15°, given the map; see `parteq.apps.cryoem.matching`.

    Args:
        model: for its disc.
        volume: the map, in units of the samples.
        data: the particles.
        poses: of them.
        device: where to compute.
        frame: of the axes of the map: poses that are right up to its symmetry are right.
        noise: see `noise_left`; None for that of these particles.
    """
    matching = Matching(volume.to(device), model.disc)
    noise = noise_left(model, volume, data, poses, device) if noise is None else noise

    def weight(samples: Tensor, transfer: Tensor, rotations: Tensor, shifts: Tensor) -> tuple[Tensor, ...]:
        return (matching.confidence(samples, transfer, rotations, shifts, noise, frame.turns),)

    return each_batch(weight, data, device, poses.rotations, poses.shifts)[0]
