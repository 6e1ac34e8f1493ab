"""Whether a training has settled in a wrong place, told without the truth.

Two signs. *Stuck*: an encoder that has learned the particle proposes, up to one turn of all, the poses that a search
over all rotations finds in the map that is left in the end. (In its own map a search finds what a stuck one proposes,
too.) What is refined later may be right all the same, see `parteq.apps.cryoem.halves`. *Symmetric*: the map that is
left in the end looks the same after a turn that is no small one, nor one of the particle's symmetry as far as that was
told. A particle may be symmetric; if it is not, such a map is a superposition of copies, one of the ways in which ab
initio reconstruction fails (Levy et al., arXiv 2203.08138).
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from parteq.apps.cryoem.frames import turned_by_vector
from parteq.apps.cryoem.matching import rotation_grid
from parteq.apps.cryoem.symmetry_axes import NO_SYMMETRY, SymmetryFrame
from parteq.datasets.cryoem.projection import fourier_volume, read_transform

__all__ = ["Diagnosis", "correlations_after_turns", "self_similarity"]

_STUCK_BELOW = 0.5
_SYMMETRIC_ABOVE = 0.95
_SMALLEST_TURN_DEGREES = 40.0


@dataclass(frozen=True)
class Diagnosis:
    """What there is to say of a run.

    Attributes:
        agreement: share of the images for which encoder and search agree, see
            `parteq.apps.cryoem.halves.search_agreement`.
        similarity: see `self_similarity`; 0 if not looked for.
        turn_in_degrees: of that turn.
    """

    agreement: float
    similarity: float = 0.0
    turn_in_degrees: float = 0.0

    @property
    def stuck(self) -> bool:
        """Whether encoder and search disagree on most images."""
        return self.agreement < _STUCK_BELOW

    @property
    def symmetric(self) -> bool:
        """Whether the map looks the same after a turn."""
        return self.similarity > _SYMMETRIC_ABOVE

    def sentence(self, *, refined: bool = False) -> str:
        """In words.

        Args:
            refined: whether the poses that this is said beside come from refinement, which searches all rotations.
        """
        if not self.stuck:
            found = f"Encoder and search agree on {self.agreement:.0%} of the images."
        else:
            found = (
                f"The encoder is stuck: for {1 - self.agreement:.0%} of the images a search finds another pose than it "
                "proposes."
            )
            if refined:
                found += (
                    " The poses and the map of this run do not rest on what it proposes: they come from refinement, "
                    "which searches all rotations. Estimate other particles with --refine, or train with more --epochs."
                )
            else:
                found += " Estimate with --refine, or train with more --epochs."
        if self.symmetric:
            found += (
                f" The map looks the same (correlation {self.similarity:.2f}) after a turn by "
                f"{self.turn_in_degrees:.0f}°: right for a symmetric particle, of which --symmetry tells; else a "
                "superposition of copies: train with --restarts, or another --seed."
            )
        return found


def self_similarity(volume: Float[Tensor, "box box box"], frame: SymmetryFrame = NO_SYMMETRY) -> tuple[float, float]:
    """The highest correlation of a map with itself after a turn that tells of a symmetry, and that turn in degrees.

    Args:
        volume: the map.
        frame: of the symmetry that it is known to have: only turns by more than 40° from all of those are looked at.
    """
    grid = rotation_grid()
    apart = torch.stack([_degrees(grid @ turn.T) for turn in frame.turns])
    grid = grid[apart.amin(0) > _SMALLEST_TURN_DEGREES]
    if not len(grid):
        return 0.0, 0.0
    best = grid[int(correlations_after_turns(volume, grid).argmax())]
    # Between the points of the grid.
    steps = torch.linspace(-0.12, 0.12, 7)
    around = turned_by_vector(best, torch.cartesian_prod(steps, steps, steps))
    correlation = correlations_after_turns(volume, around)
    index = int(correlation.argmax())
    return float(correlation[index]), float(_degrees(around)[index])


def correlations_after_turns(
    volume: Float[Tensor, "box box box"], rotations: Float[Tensor, "n 3 3"]
) -> Float[Tensor, " n"]:
    """The correlation of a map with itself after turns.

    Between the frequencies of an eighth and a half of Nyquist, where shape shows but not noise.
    """
    transform = fourier_volume(volume, padding=1)
    along = torch.arange(-0.25, 0.2501, 1 / volume.shape[-1])
    points = torch.cartesian_prod(along[along >= 0], along, along)
    radius = points.norm(dim=1)
    points = points[(radius > 1 / 16) & (radius <= 0.25)]
    straight = read_transform(transform, points[None])
    found = []
    for part in rotations.split(256):
        turned = read_transform(transform, points @ part.mT)
        power = turned.abs().square().sum(1) * straight.abs().square().sum()
        found.append((turned * straight.conj()).real.sum(1) / power.sqrt().clamp_min(1e-12))
    return torch.cat(found)


def _degrees(rotations: Float[Tensor, "n 3 3"]) -> Float[Tensor, " n"]:
    """By how much they turn."""
    angles: Tensor = roma.rotmat_geodesic_distance(rotations, torch.eye(3).to(rotations).expand_as(rotations))
    return angles.rad2deg()
