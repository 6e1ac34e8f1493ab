"""How far poses may be trusted: are they found again, by each half of the particles, or by searches begun by chance?

A particle is too sure of a map that it is itself part of, so its confidence is given the map of the other half. And a
map that is wrong explains its images well enough to be sure of their poses: posteriors are given the map. So the
particles are split; in each half nine poses in ten are forgotten, and what is left finds map and poses anew by
expectation-maximisation. A map that the images enforce comes back from so little, and comes back the same in both
halves; one that was settled in by accident does not. Then each particle is looked up in both maps. Its two poses agree
if the turn between them leaves the map as much like itself as turns by 15° do: a small turn, or one that takes a
symmetric particle to a copy. Of a right map the share of particles whose poses agree, the *agreement*, is at least what
the confidence in the poses promises, so that

    factor = agreement / mean confidence,        at most 1,

is what the confidence is to be multiplied with, and where it is small nothing is to be trusted.

A half of a hundred particles may be too few to find anything, or find it bent as the other half does, and a map that is
made symmetric may be wrong in both halves alike. So where halves disagree, and always where particles are few or
symmetric, all particles are searched again, each time begun by chance. A search that is among the two that fit the
images best is begun again with the map it has come to, as long as that helps. What fits best is kept, and the agreement
is that of these two: there are many ways to be wrong, and one, up to a turn, to be right. A particle on which the two
do not agree is given half the confidence of one on which they do, for one of them is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from parteq.apps.cryoem.diagnosis import correlations_after_turns
from parteq.apps.cryoem.estimation import MOVES, Poses, map_of_poses, misfit, refine, refine_with_map, weigh
from parteq.apps.cryoem.expectation import expectation_maximisation
from parteq.apps.cryoem.frames import turned_by_vector
from parteq.apps.cryoem.inference import PoseInference
from parteq.apps.cryoem.matching import CONFIDENT_DEGREES, rotation_grid
from parteq.apps.cryoem.passes import Data, some_of
from parteq.apps.cryoem.placement import Placement
from parteq.apps.cryoem.pose_metrics import pose_errors
from parteq.apps.cryoem.symmetry_axes import NO_SYMMETRY, SymmetryFrame

__all__ = [
    "Found",
    "Reliability",
    "confidence_across_halves",
    "encoder_placement",
    "half_agreement",
    "refine_until_reliable",
    "same_poses",
    "search_agreement",
]

_RELIABLE = 0.8  # of what there is confidence in, the share that must agree
# Agreement below which nothing is reliable, however little confidence there is. Halves have agreed on .6 of a hundred
# images by a map that was bent alike in both, and searches on .55 and .57 of some hundred where neither was right.
_ENOUGH = 0.65
_FEW = 1000  # particles, below which halves prove little, however well they agree
_MOST_SEARCHES, _FEWEST_SEARCHES = 30, 3
_SEARCHED = 20_000  # particles, times searches, lest many particles take for ever
# How often a search is begun again with its map, and to which share of its misfit it must fall.
_AGAIN, _BETTER = 3, 0.95
_DISPUTED = 0.5  # of the confidence, where two searches disagree
_KEPT = 0.1
_MOST = 4000  # particles of both halves
_MEASURED = 500
_EVERY = 50  # of the rotations of the grid, one of which the axis of a small turn is taken


@dataclass(frozen=True)
class Reliability:
    """How far to trust poses, and others found with the same map.

    Attributes:
        half_agreement: see `half_agreement`.
        confidence: the mean of what each half was given the map of the other.
        search_agreement: of the two searches that fit best, if searches were begun by chance.
    """

    half_agreement: float
    confidence: float
    search_agreement: float | None = None

    @property
    def agreement(self) -> float:
        """That of the searches if there were any."""
        return self.half_agreement if self.search_agreement is None else self.search_agreement

    @property
    def factor(self) -> float:
        """What the confidence is to be multiplied with."""
        return min(1.0, self.agreement / self.confidence) if self.confidence > 0 else 0.0

    @property
    def reliable(self) -> bool:
        """Whether there is agreement on most of the poses that there is confidence in."""
        return self.factor >= _RELIABLE and self.agreement >= _ENOUGH

    def sentence(self) -> str:
        """In words."""
        searches = "two halves of the particles, each for itself,"
        if self.search_agreement is not None:
            searches = "the two searches of several that fit best"
        found = f"{searches} find the same pose for {self.agreement:.0%} of the particles"
        if self.reliable:
            return f"{found[0].upper()}{found[1:]}."
        return f"Not reliable: {found} only. The map may be wrong; try another --seed, or more particles."


@dataclass(frozen=True)
class Found:
    """What is found of all particles together.

    Attributes:
        poses: refined.
        volume: the map that they make, in units of the samples.
        confidence: in each pose, scaled by the reliability, [N].
        frame: of the axes of the map.
        reliability: of poses and map; None of a map of poses that were known.
    """

    poses: Poses
    volume: Float[Tensor, "box box box"]
    confidence: Float[Tensor, " n"]
    frame: SymmetryFrame
    reliability: Reliability | None

    def with_axes_in_place(self, model: PoseInference, data: Data, device: torch.device) -> Found:
        """The same in the frame in which the axes that the map was made symmetric about have their standard setting."""
        if self.frame.symmetry == "C1":
            return self
        poses, frame = self.poses.in_true_frame(self.frame.placement()), self.frame.in_place()
        return replace(self, poses=poses, volume=map_of_poses(model, data, poses, device, frame), frame=frame)


@dataclass(frozen=True)
class _Search:
    """Where poses led when they were refined."""

    poses: Poses
    volume: Float[Tensor, "box box box"]
    frame: SymmetryFrame
    misfit: float


def refine_until_reliable(
    model: PoseInference, data: Data, poses: Poses, device: torch.device, seed: int, symmetry: str = "C1"
) -> Found:
    """Poses refined with their map; few or not reliable, they are searched for by chance, until two searches agree.

    Args:
        model: for its disc.
        data: the particles.
        poses: to begin with.
        device: where to compute.
        seed: of what is left to chance.
        symmetry: the point group of the particle: its map is made to have it, and a pose is as right as its copies.

    Returns:
        Of what was found that which fits the images best.
    """

    def search(start: Poses) -> _Search:
        refined, volume, frame = refine_with_map(model, data, start, device, symmetry)
        return _Search(refined, volume, frame, misfit(model, volume, data, refined, device))

    def settled(found: _Search) -> _Search:
        for _ in range(_AGAIN):
            before, found = found, min(search(found.poses), found, key=lambda one: one.misfit)
            if found.misfit > _BETTER * before.misfit:
                break
        return found

    def weigh_best() -> Float[Tensor, " n"]:
        return confidence_across_halves(model, data, tried[0].poses, device, seed, tried[0].frame)

    count = len(poses.rotations)
    few, weights, tried = count < _FEW, torch.ones(count), [search(poses)]
    agreement = half_agreement(model, data, tried[0].poses, device, seed, tried[0].frame)
    confidence = weigh_best()
    reliability = Reliability(agreement, float(confidence.mean()))
    searches = min(_MOST_SEARCHES, max(_FEWEST_SEARCHES, _SEARCHED // count))
    asked = few or symmetry != "C1" or not reliability.reliable
    for number in range(1, searches if asked else 1):
        found = search(_forgotten(poses, torch.Generator().manual_seed(seed + number), kept=0))
        second_best = tried[:2][-1]  # the only one, after the first
        promising = few and found.misfit < second_best.misfit
        tried = sorted([*tried, settled(found) if promising else found], key=lambda one: one.misfit)
        same = same_poses(tried[1].poses, tried[0].poses, tried[0].volume, tried[0].frame)
        confidence, weights = weigh_best(), torch.where(same, 1.0, _DISPUTED)
        reliability = Reliability(agreement, float(confidence.mean()), float(same.float().mean()))
        if reliability.reliable:
            break
    best = tried[0]
    # The mean over all is as if all particles were weighed alike.
    confidence = confidence * weights / weights.mean() * reliability.factor
    return Found(best.poses, best.volume, confidence.clamp_max(1), best.frame, reliability)


def confidence_across_halves(
    model: PoseInference,
    data: Data,
    poses: Poses,
    device: torch.device,
    seed: int = 0,
    frame: SymmetryFrame = NO_SYMMETRY,
) -> Float[Tensor, " n"]:
    """How probable it is that each rotation is right to 15°, given the map that the other half of the particles makes.

    Args:
        model: for its disc.
        data: the particles.
        poses: found for them.
        device: where to compute.
        seed: of the halves.
        frame: of the axes of the map that all make, see `weigh`.
    """
    order = torch.randperm(len(poses.rotations), generator=torch.Generator().manual_seed(seed))
    found = torch.empty(len(order))
    for one, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        volume = map_of_poses(model, some_of(data, other), poses.subset(other), device, frame)
        found[one] = weigh(model, volume, some_of(data, one), poses.subset(one), device, frame)
    return found


def half_agreement(
    model: PoseInference,
    data: Data,
    poses: Poses,
    device: torch.device,
    seed: int = 0,
    frame: SymmetryFrame = NO_SYMMETRY,
) -> float:
    """The share of particles to which the maps of two halves, found apart, give the same pose.

    Args:
        model: for its disc.
        data: the particles.
        poses: found for them.
        device: where to compute.
        seed: of the halves, and of what is forgotten.
        frame: of the axes of the map that all make, in the frame of which the two maps are begun.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(poses.rotations), generator=generator)[:_MOST]
    measured = order[:_MEASURED]
    unknown = _forgotten(poses.subset(measured), generator, kept=0)
    found = []
    for half in (order[::2], order[1::2]):
        part, known = some_of(data, half), poses.subset(half)
        first = map_of_poses(model, part, _forgotten(known, generator, _KEPT), device)
        again = Poses(*expectation_maximisation(model.disc, first, part, known.shifts, device))
        volume = map_of_poses(model, part, again, device)
        found.append(refine(model, volume, some_of(data, measured), unknown, device, everywhere=True))
    one, other = found
    return float(same_poses(one, other, volume, frame).float().mean())


def search_agreement(
    model: PoseInference,
    volume: Float[Tensor, "box box box"],
    data: Data,
    poses: Poses,
    device: torch.device,
    frame: SymmetryFrame = NO_SYMMETRY,
) -> float:
    """The share of particles for which a search over all rotations finds the pose that an encoder proposes.

    Up to one turn of all: a map may stand in another frame than that of the encoder.

    Args:
        model: for its disc.
        volume: the map that is left in the end, in units of the samples.
        data: the particles, or some of them.
        poses: what the encoder proposes for them.
        device: where to compute.
        frame: of the axes of the map: poses agree that are copies of one another.
    """
    searched = refine(model, volume, data, poses, device, everywhere=True, moves=MOVES)
    return float(same_poses(poses, searched, volume, frame).float().mean())


def encoder_placement(proposed: Poses, searched: Poses, frame: SymmetryFrame = NO_SYMMETRY) -> Placement:
    """Where the map of an encoder stands, as seen from the map of the poses that were searched for; in pixels.

    Args:
        proposed: by the encoder, which is not to be stuck.
        searched: of the same particles.
        frame: of the axes of their map.
    """
    one, other = ([part.double().numpy() for part in (p.rotations, p.shifts)] for p in (proposed, searched))
    found = pose_errors(one[0], other[0], (one[1], other[1]), symmetry=frame.symmetry, axes=frame.matrix).alignment
    return Placement(found.matrix, found.offset)


def same_poses(
    first: Poses, second: Poses, volume: Float[Tensor, "box box box"], frame: SymmetryFrame = NO_SYMMETRY
) -> Bool[Tensor, " n"]:
    """Whether the two poses of a particle agree, up to a turn of all; volume and frame are those of the second."""
    one, other = (poses.rotations.double().numpy() for poses in (first, second))
    # A pose is compared with the nearest copy of the other.
    alignment = pose_errors(one, other, symmetry=frame.symmetry, axes=frame.matrix).alignment
    turns = alignment.rotations_in_true_frame(one).swapaxes(1, 2) @ alignment.nearest_copies(one, other)
    alike = correlations_after_turns(volume, torch.from_numpy(turns).float())
    small = turned_by_vector(torch.eye(3), math.radians(CONFIDENT_DEGREES) * rotation_grid()[::_EVERY, 0])
    return alike > correlations_after_turns(volume, small).mean()


def _forgotten(poses: Poses, generator: torch.Generator, kept: float) -> Poses:
    """Poses of which all but a share have a rotation by chance."""
    grid, count = rotation_grid(), len(poses.rotations)
    chance = grid[torch.randint(len(grid), (count,), generator=generator)]
    known = torch.rand(count, generator=generator) < kept
    return Poses(torch.where(known[:, None, None], poses.rotations, chance), poses.shifts)
