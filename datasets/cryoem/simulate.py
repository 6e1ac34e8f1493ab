"""Simulated particles: orientations, shifts and CTFs drawn at random, and the images that they give.

    image = shift(CTF ∗ projection of the volume along R) + noise

The noise is scaled to a signal-to-noise ratio as `parteq.datasets.cryoem.noise` defines it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from numpy.typing import NDArray
from torch import Tensor

from parteq.datasets.cryoem.ctf import CTFParameters, contrast_transfer
from parteq.datasets.cryoem.noise import Colour, coloured_noise, signal_variance
from parteq.datasets.cryoem.particles import Particles
from parteq.datasets.cryoem.poses import preferred_rotations, uniform_rotations
from parteq.datasets.cryoem.projection import (
    fourier_slices,
    fourier_volume,
    half_plane,
    images_of_slices,
    phase_ramp,
)

__all__ = ["ImageFormation", "Imaging", "Microscope", "draw_imaging", "noisy_images"]

_PIXELS_AT_ONCE = 2**22
_IMAGES_FOR_THE_VARIANCE = 1024


@dataclass(frozen=True)
class Imaging:
    """How each of N particles was imaged."""

    rotations: Float64[np.ndarray, "n 3 3"]
    shifts_in_angstroms: Float64[np.ndarray, "n 2"]
    """(x, y): where the centre of the particle stands."""
    ctf: CTFParameters | None
    """None for images without CTF."""

    def __len__(self) -> int:
        return len(self.rotations)

    def subset(self, indices: NDArray[np.integer] | slice) -> Imaging:
        """Some of the particles."""
        ctf = None if self.ctf is None else self.ctf.subset(indices)
        return Imaging(self.rotations[indices], self.shifts_in_angstroms[indices], ctf)


@dataclass(frozen=True)
class Microscope:
    """What CTFs are drawn from."""

    defocus_in_micrometres: tuple[float, float] = (1.0, 2.5)
    """Least and greatest underfocus, (U + V) / 2; uniform between them."""
    astigmatism_in_angstroms: float = 0.0
    """U − V; its direction is uniform."""
    voltage_in_kilovolts: float = 300.0
    spherical_aberration_in_millimetres: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift_in_degrees: float = 0.0

    def draw(self, n: int, generator: np.random.Generator) -> CTFParameters:
        """CTFs of n particles."""
        mean = 1e4 * generator.uniform(*self.defocus_in_micrometres, n)
        return CTFParameters(
            defocus_u_in_angstroms=mean + self.astigmatism_in_angstroms / 2,
            defocus_v_in_angstroms=mean - self.astigmatism_in_angstroms / 2,
            defocus_angle_in_degrees=generator.uniform(0, 180, n),
            voltage_in_kilovolts=np.full(n, self.voltage_in_kilovolts),
            spherical_aberration_in_millimetres=np.full(n, self.spherical_aberration_in_millimetres),
            amplitude_contrast=np.full(n, self.amplitude_contrast),
            phase_shift_in_degrees=np.full(n, self.phase_shift_in_degrees),
        )


def draw_imaging(
    n: int,
    generator: np.random.Generator,
    *,
    poses: str | Particles = "uniform",
    pixel_size_in_angstroms: float | None = None,
    shift_in_angstroms: float | None = None,
    microscope: Microscope | None = None,
) -> Imaging:
    """How n simulated particles are imaged.

    Args:
        n: number of particles.
        generator: of the random numbers.
        poses: "uniform", "preferred" (see `preferred_rotations`), or particles of a real job: rows are drawn from it
            with replacement.
        pixel_size_in_angstroms: of their origins in pixels, where they do not say what a pixel is.
        shift_in_angstroms: the greatest along each axis; shifts are uniform up to it. None for those of the drawn
            rows, or none.
        microscope: None for the CTFs of the drawn rows, or none.
    """
    shifts, ctf = np.zeros((n, 2)), None
    if isinstance(poses, Particles):
        rows = generator.integers(len(poses), size=n)
        rotations, shifts = poses.rotations()[rows], poses.shifts_in_angstroms(pixel_size_in_angstroms)[rows]
        known = poses.ctf()
        ctf = None if known is None else known.subset(rows)
    else:
        rotations = {"uniform": uniform_rotations, "preferred": preferred_rotations}[poses](n, generator)
    if shift_in_angstroms is not None:
        shifts = generator.uniform(-shift_in_angstroms, shift_in_angstroms, (n, 2))
    if microscope is not None:
        ctf = microscope.draw(n, generator)
    return Imaging(rotations, shifts, ctf)


class ImageFormation:
    """The images, without noise, that a volume gives.

    Args:
        volume: [z, y, x].
        pixel_size_in_angstroms: of volume and images.
        device: where to compute.
    """

    def __init__(
        self,
        volume: Float32[np.ndarray, "box box box"],
        pixel_size_in_angstroms: float,
        device: torch.device | str = "cpu",
    ) -> None:
        self.box = volume.shape[-1]
        self.pixel_size_in_angstroms = pixel_size_in_angstroms
        self.device = torch.device(device)
        self._transform = fourier_volume(torch.from_numpy(volume).to(self.device))
        self._frequencies = half_plane(self.box, device=self.device)

    def __call__(self, imaging: Imaging) -> Float[Tensor, "n box box"]:
        """The images of all these particles at once, float32."""
        rotations, shifts = (
            torch.as_tensor(array, dtype=torch.float32, device=self.device)
            for array in (imaging.rotations, imaging.shifts_in_angstroms / self.pixel_size_in_angstroms)
        )
        slices = fourier_slices(self._transform, rotations, self._frequencies)
        slices = slices * phase_ramp(shifts, self._frequencies)
        if imaging.ctf is not None:
            ctf = contrast_transfer(imaging.ctf, self.box, self.pixel_size_in_angstroms, device=self.device)
            slices = slices * ctf
        return images_of_slices(slices, self.box)

    def batches(self, imaging: Imaging) -> Iterator[Float[Tensor, "n box box"]]:
        """The images of these particles in order, as many at a time as take little memory."""
        size = max(1, _PIXELS_AT_ONCE // self.box**2)
        for start in range(0, len(imaging), size):
            yield self(imaging.subset(slice(start, start + size)))

    def variance(self, imaging: Imaging) -> float:
        """The variance of the signal, from the first 1,024 images."""
        some = imaging.subset(slice(_IMAGES_FOR_THE_VARIANCE))
        parts = [(len(images), signal_variance(images)) for images in self.batches(some)]
        return sum(count * variance for count, variance in parts) / len(some)


def noisy_images(
    formation: ImageFormation,
    imaging: Imaging,
    deviation: float,
    generator: np.random.Generator,
    colour: Colour = "white",
) -> Iterator[Float32[np.ndarray, "n box box"]]:
    """The images of these particles in batches, with noise.

    Args:
        formation: of the images.
        imaging: of the particles.
        deviation: standard deviation of a pixel of noise, see `noise_deviation`.
        generator: of the noise.
        colour: of the noise.
    """
    for images in formation.batches(imaging):
        pixels = images.cpu().numpy()
        if deviation > 0:
            pixels = pixels + np.float32(deviation) * coloured_noise(generator, len(pixels), formation.box, colour)
        yield pixels
