"""Particles as the networks of this application take them: samples on a disc, with all that is known of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from parteq.apps.cryoem.disc import Disc
from parteq.datasets.cryoem.ctf import contrast_transfer_at
from parteq.datasets.cryoem.imaging import imaging_ctf, imaging_pixel_size
from parteq.datasets.cryoem.particles import Particles
from parteq.datasets.errors import DataError
from parteq.datasets.splits import evenly_spread

__all__ = ["ParticleSamples", "working_box"]

_IN_MEMORY_BYTES = 2**29
_SCALE_IMAGES = 1000
_CHUNK = 256


def working_box(size: int, wanted: int) -> int:
    """The box that images of ``size`` pixels are reduced to: even, at most as wanted. Raises ValueError below 8."""
    box = min(wanted, size) // 2 * 2
    if box < 8:
        raise ValueError(f"images of {size} pixels are too small: at least 8 are needed")
    return box


class ParticleSamples(Dataset[tuple[Tensor, ...]]):
    """Particles, each as (samples [F], contrast transfer [F], R [3, 3], shift in pixels of the disc [2]).

    R and the shift are the identity and zero where the file gives none.

    Args:
        particles: with images.
        disc: for images of their size.
        scale: what samples are divided by; None for their root mean square, taken of a thousand images.

    Attributes:
        pixel_size: of the disc's box, in Å.

    Raises:
        DataError: for what is wrong with the file or the stack; for images of several pixel sizes.
    """

    def __init__(self, particles: Particles, disc: Disc, scale: float | None = None) -> None:
        self.particles, self.disc = particles, disc
        self._stack = particles.images()
        if self._stack.box != disc.size:
            reason = f"has images of {self._stack.box} pixels, where {disc.size} are expected"
            raise DataError(particles.source, reason)
        self.pixel_size = imaging_pixel_size(particles) * disc.size / disc.box
        self._ctf = imaging_ctf(particles)
        self._rotations = np.broadcast_to(np.eye(3), (len(particles), 3, 3))
        if particles.has_poses:
            self._rotations = particles.rotations()
        self._shifts: Float64[np.ndarray, "n 2"] = particles.shifts_in_angstroms() / self.pixel_size
        self.scale = 1.0
        if scale is None:
            first = evenly_spread(len(self), _SCALE_IMAGES)
            scale = float(torch.cat([batch[0].abs().square().mean(1) for batch in self._batches(first)]).mean().sqrt())
            if not scale > 0:
                raise DataError(particles.source, "has images without any contrast")
        self.scale = scale

    def __len__(self) -> int:
        return len(self.particles)

    def batch(self, indices: NDArray[np.integer]) -> tuple[Tensor, ...]:
        """Some of the particles, stacked. Raises DataError where images cannot be read."""
        samples = self.disc.samples(torch.from_numpy(self._stack.read(indices))) / self.scale
        transfer = torch.ones_like(samples.real)
        if self._ctf is not None:
            frequencies = self.disc.frequencies / self.pixel_size
            transfer = contrast_transfer_at(self._ctf.subset(indices), frequencies)
        return (
            samples,
            transfer,
            torch.from_numpy(np.ascontiguousarray(self._rotations[indices])).float(),
            torch.from_numpy(self._shifts[indices]).float(),
        )

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(tensor[0] for tensor in self.batch(np.array([index])))

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, ...]]:
        """Several particles, read together; `torch.utils.data.DataLoader` asks so for a batch."""
        return list(zip(*self.batch(np.asarray(indices)), strict=True))

    def in_memory(self) -> Dataset[tuple[Tensor, ...]]:
        """The same as a `TensorDataset` where that takes no more than half a gigabyte; else this."""
        if len(self) * len(self.disc) * 12 > _IN_MEMORY_BYTES:
            return self
        parts = list(self._batches(np.arange(len(self))))
        return TensorDataset(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def _batches(self, indices: NDArray[np.integer]) -> Iterator[tuple[Tensor, ...]]:
        for part in np.array_split(indices, max(1, -(-len(indices) // _CHUNK))):
            yield self.batch(part)
