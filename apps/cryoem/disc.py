"""Images as the networks of this application see them: their transforms within a disc of frequencies.

An image of D pixels is reduced to the frequencies below Nyquist of a box of D' ≤ D pixels that shows the same field of
view. Phases are relative to the pixel (D + 1) // 2, where RELION has the centre of an unshifted particle. What an
encoder sees is an array of D' pixels about the *middle* of the array of D, which is half a pixel away for even D and a
whole one for odd D: so a quarter turn or a mirror of the one array is exactly that of the other, be D odd or even.

The mean of an image says nothing of its pose, and is left out.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from parteq.datasets.cryoem.projection import half_plane, phase_ramp

__all__ = ["Disc"]


class Disc(nn.Module):
    """The frequencies of a box of D' pixels that lie in the half-plane f_x ≥ 0, below Nyquist, without the origin.

    Args:
        box: D', even.
        size: D, of the images, at least D'.
        dtype: of the images.

    Attributes:
        frequencies: (f_x, f_y) in cycles per pixel of that box, [F, 2], the low ones first.

    Raises:
        ValueError: the box is odd, below 8 or above the size of the images.
    """

    frequencies: Tensor
    _x: Tensor
    _y: Tensor
    _from_corner: Tensor
    _to_array: Tensor

    def __init__(self, box: int, size: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if box % 2 or not 8 <= box <= size:
            raise ValueError(f"the box of a disc must be even, at least 8 and at most {size}, not {box}")
        self.box, self.size = box, size
        plane = half_plane(box, dtype=torch.float64).reshape(-1, 2)
        squared = plane.square().sum(1)
        # Of the column f_x = 0 one half repeats the other.
        chosen = (squared < 0.25 - 1e-6) & ((plane[:, 0] > 0) | (plane[:, 1] > 0))
        plane = plane[chosen][squared[chosen].argsort(stable=True)]
        self.register_buffer("frequencies", plane.to(dtype), persistent=False)
        cycles = (plane * box).round().long()
        self.register_buffer("_x", cycles[:, 0], persistent=False)
        self.register_buffer("_y", cycles[:, 1], persistent=False)
        # From the first pixel of an image to its centre, and from the middle of the array of D' pixels to the centre.
        centre = (size + 1) // 2
        away = (centre - (size - 1) / 2) * box / size
        ramps = {"_from_corner": -centre * box / size, "_to_array": (box - 1) / 2 + away}
        for name, shift in ramps.items():
            ramp = phase_ramp(plane.new_full((1, 2), shift), plane)[0]  # of a shift by as many pixels along x and y
            self.register_buffer(name, ramp.to(dtype.to_complex()), persistent=False)

    def __len__(self) -> int:
        return len(self.frequencies)

    def below(self, share: float) -> int:
        """How many of the frequencies, from the first, lie below a share of Nyquist."""
        return self.below_cycles(share * self.box / 2)

    def below_cycles(self, cycles: float) -> int:
        """How many of the frequencies, from the first, lie below as many cycles a box."""
        return int((self.frequencies.norm(dim=1) * self.box < cycles).sum())

    def samples(self, images: Float[Tensor, "n size size"]) -> Complex[Tensor, "n f"]:
        """The transforms of images, scaled so that white noise keeps its variance at D' = D."""
        half = torch.fft.rfft2(images)
        return half[:, self._y % self.size, self._x] * self._from_corner * (self.box / self.size**2)

    def images(self, samples: Complex[Tensor, "n f"]) -> Float[Tensor, "n box box"]:
        """The arrays of D' pixels whose transforms are given."""
        half = samples.new_zeros(len(samples), self.box, self.box // 2 + 1)
        moved = samples * self._to_array
        half[:, self._y % self.box, self._x] = moved
        # The other half of the column f_x = 0.
        column = self._x == 0
        half[:, -self._y[column] % self.box, 0] = moved[:, column].conj()
        return torch.fft.irfft2(half, s=(self.box, self.box)) * self.box
