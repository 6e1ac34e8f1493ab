"""From poses to images: the volume, as it is known so far, and slices through its transform.

Two decoders give the same: the slices, at given poses, of the transform of a volume.

- ``voxel``: the map reconstructed from the images of late (see `parteq.apps.cryoem.reconstruction`): each step adds its
  images at the poses found for them, and earlier ones fade. Nothing is learned by gradient; given the poses this is
  the least-squares volume, so it never lags behind them.
- ``implicit``: a network from frequencies to the transform, learned by gradient (Zhong et al., arXiv 1909.05215; Levy
  et al., arXiv 2203.08138).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from parteq.apps.cryoem.reconstruction import Reconstruction
from parteq.core.distributed import total
from parteq.datasets.cryoem.projection import fourier_slices, fourier_volume

__all__ = ["DECODERS", "ImplicitDecoder", "VoxelDecoder"]

_PRIOR = 0.3  # weight of the assumption that there is nothing, in units of the mean weight of a point
_MEMORY = (2000, 20_000)  # images that a map is made of, at least and at most
_FEATURES, _HIDDEN, _SCALE = 128, 256, 8.0


class VoxelDecoder(nn.Module):
    """A map from the images of late.

    Args:
        box: voxels along an edge, D.
        particles: how many images there are; the map is made of about that many, but of 2,000 at least and 20,000 at
            most.

    Attributes:
        sums: what images have added, see `Reconstruction`; part of the state.
    """

    sums: Tensor
    ball: Tensor

    def __init__(self, box: int, particles: int) -> None:
        super().__init__()
        self.box = box
        self.memory = min(max(particles, _MEMORY[0]), _MEMORY[1])
        self.register_buffer("sums", torch.zeros_like(Reconstruction(box).sums))
        # The volume is zero outside the largest ball, with an edge of some voxels.
        along = torch.arange(box) - box // 2
        radius = (along.square()[:, None, None] + along.square()[:, None] + along.square()).sqrt()
        self.register_buffer("ball", torch.sigmoid((box / 2 - 1.5 - radius) * 2), persistent=False)

    def volume(self) -> Float[Tensor, "box box box"]:
        """The map [z, y, x]; without its mean, which images do not tell here."""
        reconstruction = Reconstruction(self.box, device=self.sums.device)
        weights = self.sums[2]
        # Poses that are still rough spoil the high frequencies, where weights are small, the most.
        prior = _PRIOR * weights.sum() / (weights > 0).sum().clamp_min(1)
        reconstruction.sums = torch.cat([self.sums[:2], (weights + prior)[None]])
        volume: Tensor = reconstruction.volume() * self.ball
        return volume

    def transform(self) -> Tensor:
        """What `slices` reads: to be computed once for a state of the volume."""
        with torch.no_grad():
            return fourier_volume(self.volume())

    def slices(
        self, transform: Tensor, rotations: Float[Tensor, "n 3 3"], frequencies: Float[Tensor, "f 2"]
    ) -> Complex[Tensor, "n f"]:
        """Slices at the poses R; differentiable with respect to them."""
        return fourier_slices(transform, rotations, frequencies)

    @torch.no_grad()
    def add(
        self,
        samples: Complex[Tensor, "n f"],
        transfer: Float[Tensor, "n f"],
        rotations: Float[Tensor, "n 3 3"],
        frequencies: Float[Tensor, "f 2"],
    ) -> None:
        """Adds images whose shifts are undone, of all processes; those of before fade accordingly."""
        new = Reconstruction(self.box, device=self.sums.device)
        new.insert_samples(frequencies, samples * transfer, transfer.square(), rotations)
        count = total(torch.tensor(float(len(samples)), device=self.sums.device))
        self.sums.mul_(torch.clamp(1 - count / self.memory, min=0)).add_(total(new.sums))


class ImplicitDecoder(nn.Module):
    """A network from frequencies in space to the transform of a volume, Hermitian by construction.

    Args:
        box: voxels along an edge, D.
        particles: not used; for the interface.
    """

    directions: Tensor

    def __init__(self, box: int, particles: int) -> None:
        super().__init__()
        self.box = box
        # Random Fourier features of the frequency (Tancik et al., arXiv 2006.10739): positions in the box.
        places = torch.randn(3, _FEATURES) * box / _SCALE
        self.register_buffer("directions", 2 * torch.pi * places)
        self.network = nn.Sequential(
            nn.Linear(2 * _FEATURES, _HIDDEN), nn.SiLU(),
            nn.Linear(_HIDDEN, _HIDDEN), nn.SiLU(),
            nn.Linear(_HIDDEN, _HIDDEN), nn.SiLU(),
            nn.Linear(_HIDDEN, 2),
        )  # fmt: skip

    def volume(self) -> Float[Tensor, "box box box"]:
        """The map [z, y, x]."""
        along = torch.fft.fftfreq(self.box, device=self.directions.device)
        half = torch.fft.rfftfreq(self.box, device=self.directions.device)
        z, y, x = torch.meshgrid(along, along, half, indexing="ij")
        points = torch.stack([x, y, z], -1)
        inside = points.square().sum(-1) < 0.25
        values = torch.where(inside, self._values(points), 0)
        return torch.roll(torch.fft.irfftn(values, s=(self.box,) * 3), (self.box // 2,) * 3, (0, 1, 2))

    def transform(self) -> Tensor:
        """Nothing has to be computed beforehand."""
        return self.directions

    def slices(
        self, transform: Tensor, rotations: Float[Tensor, "n 3 3"], frequencies: Float[Tensor, "f 2"]
    ) -> Complex[Tensor, "n f"]:
        """Slices at the poses R; differentiable with respect to them and to the network."""
        return self._values(frequencies @ rotations[:, :2])

    def add(self, *_: Tensor) -> None:
        """The network learns by gradient instead."""

    def _values(self, points: Float[Tensor, "*n 3"]) -> Complex[Tensor, "*n"]:
        """The transform at points, in cycles per voxel: V(k) + conj V(−k), over two."""
        angles = points @ self.directions
        even, odd = angles.cos(), angles.sin()
        there = self.network(torch.cat([even, odd], -1))
        opposite = self.network(torch.cat([even, -odd], -1))
        real, imaginary = ((there + opposite) / 2)[..., 0], ((there - opposite) / 2)[..., 1]
        # Transforms fall off: what the network gives is of the order of 1 everywhere.
        return torch.complex(real, imaginary) * (self.box / math.sqrt(self.box))


DECODERS: dict[str, type[VoxelDecoder] | type[ImplicitDecoder]] = {"voxel": VoxelDecoder, "implicit": ImplicitDecoder}
"""The decoders by name."""
