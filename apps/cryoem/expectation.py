"""A map from images whose poses are all but unknown: expectation-maximisation over a grid of rotations.

Given a map, the posterior of the rotation g for image i is p_ig ∝ exp(−Σ_f |y_i − c_i s_g|² / σ²), see
`parteq.apps.cryoem.matching`. Given posteriors, the likeliest map is the least-squares one in which each image stands
at every rotation with its weight (Sigworth, JSB 1998; Scheres, JSB 2012). All samples at one rotation are summed before
they are inserted, so that a round is four matrix products and the insertion of as many slices as the grid has:

    Σ_i p_ig c_i y_i   and   Σ_i p_ig c_i².

σ² of each shell of frequencies is what is then left over, its expectation; at first it is all there is, which leaves
posteriors flat. Shifts move by a step of Gauss and Newton towards the expected slice Σ_g p_ig s_g. The lowest
frequencies come first, and others as rounds go by; where the images do not tell poses apart the map stays smooth, and
nothing is decided before they do.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from parteq.apps.cryoem.disc import Disc
from parteq.apps.cryoem.matching import SEARCH_CYCLES, Matching, rotation_grid
from parteq.apps.cryoem.passes import Data, each_batch
from parteq.apps.cryoem.reconstruction import Reconstruction
from parteq.apps.cryoem.shells import Shells
from parteq.core.distributed import total

__all__ = ["expectation_maximisation"]

_ROUNDS = 14
_FIRST_CYCLES = SEARCH_CYCLES / 2
_MARCH = 0.7  # share of the rounds after which all frequencies are in
_REGULARISATION = 0.05
_LEAST_NOISE = 1e-6  # over the power of the images
_STEP = 0.5  # pixels: standard deviation of a step of a shift, before the image is seen


def expectation_maximisation(
    disc: Disc,
    volume: Float[Tensor, "box box box"],
    data: Data,
    shifts: Float[Tensor, "n 2"],
    device: torch.device,
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 2"]]:
    """Rotations, the likeliest of the grid, and shifts.

    Args:
        disc: of the samples.
        volume: to begin with, in units of the samples.
        data: the particles.
        shifts: to begin with, (x, y) in pixels of the disc.
        device: where to compute.
    """
    shells = Shells(disc, device)
    (power,) = each_batch(lambda samples, _: (shells.means(samples.abs().square()),), data, device)
    noise = shells.spread(power.mean(0).to(device))
    least = _LEAST_NOISE * noise
    rotations = torch.empty(0)
    for number in range(_ROUNDS):
        progress = min(1.0, number / (_MARCH * _ROUNDS))
        few = disc.below_cycles(_FIRST_CYCLES + (SEARCH_CYCLES - _FIRST_CYCLES) * progress)
        expectation = _Expectation(Matching(volume.to(device), disc), shells, noise[:few])
        rotations, shifts, left = each_batch(expectation, data, device, shifts)
        noise[:few] = shells.spread(left.mean(0).to(device))[:few].maximum(least[:few])
        volume = expectation.volume()
    return rotations, shifts


class _Expectation:
    """One round: called on batches it gives the best rotations, shifts and the power left on each shell, and sums."""

    def __init__(self, matching: Matching, shells: Shells, noise: Float[Tensor, " f"]) -> None:
        self._matching, self._shells, self._noise = matching, shells, noise
        slices = matching.grid_slices(len(noise))
        self._slices, self._power = torch.view_as_real(slices).flatten(1), slices.abs().square()
        self._data, self._weights = torch.zeros_like(self._slices), torch.zeros_like(self._power)

    def __call__(
        self, samples: Complex[Tensor, "n f"], transfer: Float[Tensor, "n f"], shifts: Float[Tensor, "n 2"]
    ) -> tuple[Tensor, ...]:
        matching, few = self._matching, len(self._noise)
        posterior = matching.posterior(samples, transfer, shifts, self._noise)
        seen, c = matching.unshifted(samples[:, :few], shifts), transfer[:, :few]
        self._data += posterior.T @ torch.view_as_real(c * seen).flatten(1)
        self._weights += posterior.T @ c.square()
        expected = torch.view_as_complex((posterior @ self._slices).unflatten(1, (-1, 2)))
        power = posterior @ self._power
        left = seen.abs().square() - 2 * c * (seen.conj() * expected).real + c.square() * power
        rotations = rotation_grid().to(samples.device)[posterior.argmax(1)]
        return rotations, shifts + self._step(seen, c * expected), self._shells.means(left)

    def _step(self, seen: Complex[Tensor, "n f"], expected: Complex[Tensor, "n f"]) -> Float[Tensor, "n 2"]:
        """How the shift of each image moves."""
        frequencies = self._matching.disc.frequencies[: len(self._noise)]
        slopes = 2 * math.pi * frequencies / self._noise.sqrt()[:, None]
        # The derivative of the expected image is −2πi f times it.
        gradient = ((seen.conj() * expected).imag / self._noise.sqrt()) @ slopes
        curvature = torch.einsum("nf,fa,fb->nab", expected.abs().square(), slopes, slopes)
        prior = torch.eye(2, device=seen.device) / _STEP**2
        return torch.linalg.solve(curvature + prior, gradient[:, :, None])[..., 0]

    def volume(self) -> Float[Tensor, "box box box"]:
        """The map of all that was summed, of all processes."""
        disc = self._matching.disc
        reconstruction = Reconstruction(disc.box, device=self._weights.device)
        data = torch.view_as_complex(total(self._data).unflatten(1, (-1, 2)).contiguous())
        grid = rotation_grid().to(data.device)
        reconstruction.insert_samples(disc.frequencies[: len(self._noise)], data, total(self._weights), grid)
        return reconstruction.volume(_REGULARISATION)
