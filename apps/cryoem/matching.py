"""Projection matching: poses against a volume, searched on a grid, refined one by one, and how sure each is.

With y the transform of an image, c its contrast transfer function and s_g the slice of the volume at the rotation g,

    ‖y − c s_g‖² = ‖y‖² − 2 Re ⟨c y, s_g⟩ + ⟨c², |s_g|²⟩,

so all images against all rotations of a grid are two matrix products. Under noise of variance σ²(f) at the frequency f,
exp(−Σ |y − c s_g|² / σ²) over the grid, normalised, is the posterior of g; the *confidence* of a pose is the share of
it within 15°.

Refinement is by the Levenberg-Marquardt method over three angles and two shifts, all images at once, from the low
frequencies up: derivatives for the angles are differences of slices, those for shifts exact.
"""

from __future__ import annotations

import math
from functools import cache

import roma
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from parteq.apps.cryoem.disc import Disc
from parteq.apps.cryoem.frames import turned_by_vector
from parteq.datasets.cryoem.projection import fourier_slices, fourier_volume, phase_ramp

__all__ = ["CONFIDENT_DEGREES", "SEARCH_CYCLES", "Matching", "rotation_grid"]

Samples = Complex[Tensor, "n f"]
Transfer = Float[Tensor, "n f"]
Rotations = Float[Tensor, "n 3 3"]
Shifts = Float[Tensor, "n 2"]

CONFIDENT_DEGREES = 15.0
"""How near a pose has to be to count for its confidence."""

_GRID = 4608  # rotations, some 13° apart
SEARCH_CYCLES = 9.6
"""Frequencies below as many cycles a box are searched with: a grid as coarse sees no more."""
_MOVES_A_BOX = 32  # steps of a shift: a third of the shortest wave that is searched with
_CUTOFFS = (0.4, 0.5, 0.6, 0.8, 0.8, 1.0, 1.0, 1.0)
_LARGEST_TURN, _LARGEST_MOVE = math.radians(10), 1.0  # of a step


@cache
def rotation_grid(count: int = _GRID) -> Float[Tensor, "count 3 3"]:
    """Rotations spread evenly over SO(3): super-Fibonacci spirals (Alexa, CVPR 2022)."""
    place = torch.arange(count, dtype=torch.float64) + 0.5
    share = place / count
    first, second = 2 * math.pi * place / math.sqrt(2), 2 * math.pi * place / 1.533751168755204288118041
    near, far = share.sqrt(), (1 - share).sqrt()
    quaternions = torch.stack([near * first.sin(), near * first.cos(), far * second.sin(), far * second.cos()], -1)
    return roma.unitquat_to_rotmat(quaternions).float()


class Matching:
    """A volume that images are matched against.

    Images are given by their transforms on the disc, ``samples``, their contrast transfer functions there,
    ``transfer``, and where their centres stand, ``shifts``, in pixels of the disc.

    Args:
        volume: in units of the samples.
        disc: of the frequencies.
    """

    def __init__(self, volume: Float[Tensor, "box box box"], disc: Disc) -> None:
        self.disc = disc
        self._transform = fourier_volume(volume)
        self._slices: dict[int, Tensor] = {}

    def residuals(
        self, samples: Samples, transfer: Transfer, rotations: Rotations, shifts: Shifts
    ) -> Float[Tensor, " n"]:
        """The mean over frequencies of |y − c s|² of each image."""
        return self.missing(samples, transfer, rotations, shifts).abs().square().mean(1)

    def missing(
        self, samples: Samples, transfer: Transfer, rotations: Rotations, shifts: Shifts
    ) -> Complex[Tensor, "n f"]:
        """y − c s, what the volume leaves of each image."""
        return samples - self._predicted(transfer, rotations, shifts, len(self.disc))

    def search(
        self, samples: Samples, transfer: Transfer, shifts: Shifts, moves: int = 0
    ) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 2"]]:
        """Of the grid of rotations, and of shifts about those given, what fits each image best.

        Args:
            samples, transfer, shifts: of the images.
            moves: steps of a shift to either side, of which 32 make a box.
        """
        few = self.disc.below_cycles(SEARCH_CYCLES)
        white = torch.ones(few, device=samples.device)
        energies = self._energies(transfer, white)
        along = torch.arange(-moves, moves + 1, device=samples.device) * (self.disc.box / _MOVES_A_BOX)
        offsets = torch.cartesian_prod(along, along).to(shifts)
        found = [
            (energies - 2 * self._agreement(samples, transfer, shifts + offset, white)).min(1) for offset in offsets
        ]
        place = torch.stack([best.values for best in found]).argmin(0)
        rotation = torch.stack([best.indices for best in found]).gather(0, place[None])[0]
        return rotation_grid().to(samples.device)[rotation], shifts + offsets[place]

    def posterior(
        self, samples: Samples, transfer: Transfer, shifts: Shifts, noise: Float[Tensor, " few"]
    ) -> Float[Tensor, "n count"]:
        """The posterior probability of each rotation of the grid.

        Args:
            samples, transfer, shifts: of the images.
            noise: σ², the variance of a sample, at the first frequencies; others are not looked at.
        """
        return torch.softmax(-self._against_grid(samples, transfer, shifts, noise), 1)

    def confidence(
        self,
        samples: Samples,
        transfer: Transfer,
        rotations: Rotations,
        shifts: Shifts,
        noise: Float[Tensor, " f"],
        turns: Float[Tensor, "order 3 3"],
    ) -> Float[Tensor, " n"]:
        """The posterior probability that each rotation is within 15° of that given, or of that after a turn.

        Args:
            samples, transfer, rotations, shifts: of the images.
            noise: σ², the variance of a sample at each frequency.
            turns: M after which the volume is as it was, the identity among them.
        """
        grid = rotation_grid().to(samples.device)
        few = self.disc.below_cycles(SEARCH_CYCLES)
        posterior = self.posterior(samples, transfer, shifts, noise[:few])
        limit = 1 + 2 * math.cos(math.radians(CONFIDENT_DEGREES))
        near = torch.zeros_like(posterior, dtype=torch.bool)
        for turn in turns.to(grid):
            near |= (rotations @ turn).flatten(1) @ grid.flatten(1).T > limit
        return (posterior * near).sum(1).clamp_max(1)

    def refine(
        self, samples: Samples, transfer: Transfer, rotations: Rotations, shifts: Shifts
    ) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 2"]]:
        """Poses moved to the nearest minimum of the residual."""
        damping = torch.full((len(samples), 1), 1e-2, device=samples.device)
        for cutoff in _CUTOFFS:
            few = self.disc.below(cutoff)
            seen, c = samples[:, :few], transfer[:, :few]
            base = self._predicted(c, rotations, shifts, few)
            # Radians: half a point of the padded grid, at the highest frequency.
            jacobian = self._jacobian(base, c, rotations, shifts, step=0.5 / (cutoff * self.disc.box))
            missing = torch.view_as_real(seen - base).flatten(1)
            change = _damped_step(jacobian, missing, damping)
            turned = turned_by_vector(rotations, _at_most(change[:, :3], _LARGEST_TURN))
            moved = shifts + _at_most(change[:, 3:], _LARGEST_MOVE)
            after = torch.view_as_real(seen - self._predicted(c, turned, moved, few)).flatten(1)
            better = (after.square().sum(1) < missing.square().sum(1))[:, None]
            rotations = torch.where(better[..., None], turned, rotations)
            shifts = torch.where(better, moved, shifts)
            damping = torch.where(better, damping / 3, damping * 10)
        return rotations, shifts

    def _predicted(self, transfer: Transfer, rotations: Rotations, shifts: Shifts, few: int) -> Complex[Tensor, "n f"]:
        """The transforms of the images at these poses, at the first ``few`` frequencies."""
        frequencies = self.disc.frequencies[:few]
        return transfer * fourier_slices(self._transform, rotations, frequencies) * phase_ramp(shifts, frequencies)

    def _jacobian(
        self, base: Complex[Tensor, "n f"], transfer: Transfer, rotations: Rotations, shifts: Shifts, step: float
    ) -> Float[Tensor, "n 5 parts"]:
        """Derivatives of what is predicted, ``base``, for three angles in radians and two shifts in pixels."""
        few = base.shape[1]
        columns = [
            (self._predicted(transfer, turned_by_vector(rotations, axis.expand(len(base), 3)), shifts, few) - base)
            / step
            for axis in torch.eye(3, device=base.device) * step
        ]
        columns += [-2j * math.pi * self.disc.frequencies[:few, axis] * base for axis in range(2)]
        return torch.view_as_real(torch.stack(columns, 1)).flatten(2)

    def grid_slices(self, few: int) -> Complex[Tensor, "count few"]:
        """The volume's slices at the rotations of the grid, at the first frequencies."""
        if few not in self._slices:
            grid = rotation_grid().to(self._transform.device)
            self._slices[few] = fourier_slices(self._transform, grid, self.disc.frequencies[:few])
        return self._slices[few]

    def unshifted(self, samples: Complex[Tensor, "n few"], shifts: Shifts) -> Complex[Tensor, "n few"]:
        """Samples, at the first frequencies, of the images moved back by their shifts."""
        return samples * phase_ramp(-shifts, self.disc.frequencies[: samples.shape[1]])

    def _against_grid(
        self, samples: Samples, transfer: Transfer, shifts: Shifts, noise: Float[Tensor, " few"]
    ) -> Float[Tensor, "n count"]:
        """Σ (|y − c s_g|² − |y|²) / σ² over the first frequencies."""
        return self._energies(transfer, noise) - 2 * self._agreement(samples, transfer, shifts, noise)

    def _energies(self, transfer: Transfer, noise: Float[Tensor, " few"]) -> Float[Tensor, "n count"]:
        """Σ |c s_g|² / σ² over the first frequencies."""
        few = len(noise)
        return (transfer[:, :few].square() / noise) @ self.grid_slices(few).abs().square().T

    def _agreement(
        self, samples: Samples, transfer: Transfer, shifts: Shifts, noise: Float[Tensor, " few"]
    ) -> Float[Tensor, "n count"]:
        """Σ Re ⟨c y, s_g⟩ / σ² over the first frequencies."""
        few = len(noise)
        seen = transfer[:, :few] * self.unshifted(samples[:, :few], shifts) / noise
        return torch.view_as_real(seen).flatten(1) @ torch.view_as_real(self.grid_slices(few)).flatten(1).T


def _damped_step(
    jacobian: Float[Tensor, "n 5 parts"], missing: Float[Tensor, "n parts"], damping: Float[Tensor, "n 1"]
) -> Float[Tensor, "n 5"]:
    """The step of Levenberg and Marquardt; what is undetermined, as for an empty image, stays where it is."""
    normal = jacobian @ jacobian.mT
    diagonal = normal.diagonal(dim1=1, dim2=2)
    damped = normal + torch.diag_embed(damping * diagonal + 1e-6 * diagonal.amax(1, keepdim=True) + 1e-12)
    return torch.linalg.solve(damped, jacobian @ missing[:, :, None])[..., 0]


def _at_most(vectors: Float[Tensor, "n d"], length: float) -> Float[Tensor, "n d"]:
    """Vectors, those that are longer cut to the length given."""
    return vectors * (length / vectors.norm(dim=1, keepdim=True).clamp_min(length))
