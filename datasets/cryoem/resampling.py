"""A volume on another grid about the same centre, by trigonometric interpolation.

A volume of n voxels of size p along each edge is read as the trigonometric polynomial through its voxels, cut off at
the Nyquist frequency of the new grid. Along one axis, a voxel i contributes to a place u (in old voxels)

    (1/n) Σ_{|k| ≤ K} exp(2πi k (u − i)/n)  =  sin(M π (u − i)/n) / (n sin(π (u − i)/n)),      M = 2 K + 1,

with K the last k below both Nyquist frequencies: Dirichlet's kernel. Where the new grid is as fine as the old one or
finer, the wave of the old grid's own Nyquist frequency, cos(π (u − i))/n, belongs to it too: no voxel is changed. For
grids of the same field of view this is cropping or padding of the Fourier transform; but any voxel sizes will do.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float32
from scipy.special import diric

__all__ = ["resample"]


def resample(
    volume: Float[np.ndarray, "d d d"], pixel_size: float, new_box: int, new_pixel_size: float
) -> Float32[np.ndarray, "e e e"]:
    """A volume on a grid of other size and spacing; the voxel D // 2 of either stands in the same place.

    Args:
        volume: voxels of size `pixel_size`.
        pixel_size: in Å, or in any unit.
        new_box: voxels along an edge of the result.
        new_pixel_size: in the same unit.

    Returns:
        The volume, float32, zero outside the old box.
    """
    box, ratio = volume.shape[-1], new_pixel_size / pixel_size
    if box == new_box and math.isclose(ratio, 1):
        return volume.astype(np.float32)
    # Rounded, so that a grid which is the same but for rounding is the same.
    nyquist = round(box / 2 * min(1.0, 1 / ratio), 6)
    terms = 2 * (math.ceil(nyquist) - 1) + 1
    places = (np.arange(new_box) - new_box // 2) * ratio + box // 2
    apart = places[:, None] - np.arange(box)
    kernel = terms * diric(2 * np.pi / box * apart, terms) / box
    if nyquist == box / 2 and box % 2 == 0:
        kernel += np.cos(np.pi * apart) / box
    kernel[(places < -0.5) | (places > box - 0.5)] = 0
    weights = kernel.astype(np.float32)
    result = volume.astype(np.float32)
    for _ in range(3):
        # The last axis is replaced and becomes the first: after three turns all are in place.
        result = np.moveaxis(result @ weights.T, -1, 0)
    return np.ascontiguousarray(result)
