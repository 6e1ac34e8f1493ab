"""A map from images whose poses are known, by insertion of their transforms into that of the map.

By the Fourier-slice theorem (see `parteq.datasets.cryoem.projection`) the transform of an image, its shift undone, is
X(f) = c(f) Φ(Rᵀ(f_x, f_y, 0)) + noise, c being the contrast transfer function. Each sample is handed, with trilinear
weights w, to the eight points around it on a grid P = `padding` · D as fine as the box. On that grid

    Φ(k) = Σ w c X / (Σ w c² + ε m(|k|)),

where m is the mean of Σ w c² over the shell |k|, and ε the regularisation: a Wiener filter whose noise is ε times the
signal that an average point of the shell holds, so that points that few samples, or zeros of c, have left all but
empty do not become loud. Reading the data through a triangle has multiplied the map by sinc² along each axis, by
which it is divided at the end (gridding correction). A particle of a point group is inserted once for each element S,
with the pose R S.

The map is in the units of the potential the images are projections of, sums over voxels; it is zero beyond Nyquist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from parteq.apps.cryoem.pointgroups import point_group
from parteq.datasets.cryoem.ctf import contrast_transfer
from parteq.datasets.cryoem.imaging import imaging_ctf
from parteq.datasets.cryoem.projection import half_plane, phase_ramp, slices_of_images

if TYPE_CHECKING:
    from parteq.datasets.cryoem.particles import Particles

__all__ = ["REGULARISATION", "Reconstruction", "insert_particles"]

REGULARISATION = 1e-3


class Reconstruction:
    """What images have added to the transform of a map so far.

    Args:
        box: pixels along an edge of the images and of the map, D.
        symmetry: point group, see `parteq.apps.cryoem.pointgroups`.
        padding: how much finer than 1/D the grid is.
        device: where to compute.

    Attributes:
        sums: Σ w c X, its real and its imaginary part, and Σ w c² on the grid, flat, [3, points].
    """

    def __init__(self, box: int, *, symmetry: str = "C1", padding: int = 2, device: torch.device | str = "cpu") -> None:
        self.box, self.device = box, torch.device(device)
        self._padded = 2 * (padding * box // 2)
        self._group = torch.from_numpy(point_group(symmetry)).to(self.device, torch.float32)
        # k_z, k_y from −P/2 to P/2, k_x from 0: the real part, the imaginary part, and the weight.
        half = self._padded // 2
        self.sums = torch.zeros(3, (2 * half + 1) ** 2 * (half + 1), device=self.device)
        plane = half_plane(box, device=self.device).reshape(-1, 2)
        # Without the half of the column f_x = 0 that the other half repeats.
        once = (plane[:, 0] > 0) | (plane[:, 1] >= 0)
        self._chosen = torch.nonzero(once & (plane.square().sum(1) < 0.25 - 1e-6))[:, 0]
        self._frequencies = plane[self._chosen]

    def insert(
        self,
        images: Float[Tensor, "n box box"],
        rotations: Float[Tensor, "n 3 3"],
        shifts_in_pixels: Float[Tensor, "n 2"],
        transfer: Float[Tensor, "n box half"] | None = None,
    ) -> None:
        """Adds images.

        Args:
            images: [y, x] each.
            rotations: R of each.
            shifts_in_pixels: (x, y), where the particle's centre stands.
            transfer: the contrast transfer function on the frequencies of `torch.fft.rfft2`; None if there is none.
        """
        samples = slices_of_images(images).flatten(1)[:, self._chosen]
        samples = samples * phase_ramp(-shifts_in_pixels, self._frequencies)
        weights = torch.ones_like(samples.real)
        if transfer is not None:
            values = transfer.flatten(1)[:, self._chosen]
            samples, weights = samples * values, values.square()
        self.insert_samples(self._frequencies, samples, weights, rotations)

    def insert_samples(
        self,
        frequencies: Float[Tensor, "f 2"],
        samples: Complex[Tensor, "n f"],
        weights: Float[Tensor, "n f"],
        rotations: Float[Tensor, "n 3 3"],
    ) -> None:
        """Adds samples c X of transforms, with their weights c², at frequencies (f_x, f_y) in cycles per pixel."""
        for element in self._group:
            self._scatter(frequencies @ (rotations @ element)[:, :2], samples, weights)

    def _scatter(
        self, points: Float[Tensor, "n f 3"], samples: Complex[Tensor, "n f"], weights: Float[Tensor, "n f"]
    ) -> None:
        """Hands samples at points, in cycles per pixel, to the eight points of the grid around each."""
        conjugate = points[..., 0] < 0
        points = points * torch.where(conjugate, -1.0, 1.0)[..., None] * self._padded
        parts = torch.stack([samples.real, torch.where(conjugate, -samples.imag, samples.imag), weights]).flatten(1)
        corner = points.floor()
        fraction = (points - corner).flatten(0, 1)
        half = self._padded // 2
        x, y, z = corner.long().flatten(0, 1).unbind(1)
        strides = (2 * half + 1) * (half + 1), half + 1, 1
        first = (z + half) * strides[0] + (y + half) * strides[1] + x
        for number in range(8):
            steps = (number >> 2, number >> 1 & 1, number & 1)
            place = first + sum(step * stride for step, stride in zip(steps, strides, strict=True))
            share = torch.ones_like(fraction[:, 0])
            for axis, step in zip((2, 1, 0), steps, strict=True):
                share = share * (fraction[:, axis] if step else 1 - fraction[:, axis])
            for total, part in zip(self.sums, parts, strict=True):
                total.scatter_add_(0, place, part * share)

    def __add__(self, other: Reconstruction) -> Reconstruction:
        """What the images of both have added."""
        total = object.__new__(Reconstruction)
        total.__dict__.update(self.__dict__, sums=self.sums + other.sums)
        return total

    def volume(self, regularisation: float = REGULARISATION) -> Float[Tensor, "box box box"]:
        """The map [z, y, x].

        Args:
            regularisation: ε.
        """
        half, box = self._padded // 2, self.box
        real, imaginary, weight = self.sums.unflatten(1, (2 * half + 1, 2 * half + 1, half + 1))
        data = torch.complex(real, imaginary)
        # On the plane k_x = 0 each point is also the conjugate of its opposite.
        data, weight = data.clone(), weight.clone()
        data[..., 0] += data[..., 0].flip(0, 1).conj()
        weight[..., 0] += weight[..., 0].flip(0, 1)
        # P/2 is −P/2 once more, and empty but for the edge of the ball of samples.
        data, weight = data[:-1, :-1], weight[:-1, :-1]
        transform = data / (weight + regularisation * self._shell_means(weight)).clamp_min(1e-12)
        centred = torch.fft.irfftn(torch.fft.ifftshift(transform, dim=(0, 1)), s=(2 * half,) * 3)
        # The centre of the map is its voxel D // 2.
        rolled = torch.roll(centred, (box // 2,) * 3, (0, 1, 2))[:box, :box, :box]
        correction = torch.sinc((torch.arange(box, device=self.device) - box // 2) / (2 * half)).square()
        return rolled / (correction * correction[:, None] * correction[:, None, None])

    def _shell_means(self, weight: Float[Tensor, "p p half"]) -> Float[Tensor, "p p half"]:
        """At each point the mean weight of its shell."""
        half = self._padded // 2
        along = torch.arange(-half, half, device=self.device).square()
        squared = along[:, None, None] + along[:, None] + torch.arange(half + 1, device=self.device).square()
        shell = squared.sqrt().round().long()
        totals = torch.bincount(shell.flatten(), weight.flatten())
        return (totals / torch.bincount(shell.flatten())).to(weight.dtype)[shell]


def insert_particles(
    reconstruction: Reconstruction,
    particles: Particles,
    indices: Int[np.ndarray, " chosen"],
    pixel_size_in_angstroms: float,
    *,
    ctf: bool = True,
    batch_size: int = 64,
    progress: Callable[[int], object] = lambda count: None,
) -> None:
    """Adds images of a stack, a batch at a time.

    Args:
        reconstruction: to add to.
        particles: with poses.
        indices: which of them.
        pixel_size_in_angstroms: of all images, see `parteq.datasets.cryoem.imaging`.
        ctf: False to take the contrast transfer function for one although the particles name it.
        batch_size: images in memory at a time.
        progress: is told the number of images that were added.

    Raises:
        DataError: for what is wrong with the stack.
    """
    device, stack = reconstruction.device, particles.images()
    rotations = torch.from_numpy(particles.rotations()).to(device, torch.float32)
    shifts = torch.from_numpy(particles.shifts_in_angstroms() / pixel_size_in_angstroms).to(device, torch.float32)
    parameters = imaging_ctf(particles) if ctf else None
    # In the order of the stack, for the sake of the disk.
    for part in np.array_split(np.sort(indices), max(1, -(-len(indices) // batch_size))):
        transfer = None
        if parameters is not None:
            transfer = contrast_transfer(parameters.subset(part), stack.box, pixel_size_in_angstroms, device=device)
        images = torch.from_numpy(stack.read(part)).to(device)
        reconstruction.insert(images, rotations[part], shifts[part], transfer)
        progress(len(part))
