"""Noise at a stated signal-to-noise ratio.

The ratio is **signal variance over noise variance, over all pixels**: the variance of the pixels of an image without
noise (after CTF and shift, about the mean of that image, background included), averaged over images, divided by the
variance of a pixel of the noise. All images of a stack get noise of the same variance, as one detector would give.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor

__all__ = ["Colour", "coloured_noise", "noise_deviation", "signal_variance"]

Colour = Literal["white", "pink"]
"""How the power of the noise depends on the frequency f: not at all, or as 1/f."""


def signal_variance(images: Float[Tensor, "n box box"]) -> float:
    """Variance of the pixels of images without noise, each about its own mean, averaged over images."""
    return images.double().var((-2, -1), correction=0).mean().item()


def noise_deviation(variance_of_signal: float, snr: float) -> float:
    """Standard deviation of a pixel of noise that gives this ratio; 0 for an infinite ratio."""
    return float(np.sqrt(variance_of_signal / snr))


def coloured_noise(
    generator: np.random.Generator, n: int, box: int, colour: Colour
) -> Float32[np.ndarray, "n box box"]:
    """Gaussian noise whose pixels have mean 0 and variance 1.

    The images are drawn in order: n at once are the same as n one after the other.

    Args:
        generator: of the random numbers.
        n: number of images.
        box: pixels along an edge.
        colour: of the noise. The power of pink noise at f = 0 is that of the next frequency.
    """
    white = generator.standard_normal((n, box, box), dtype=np.float32)
    if colour == "white":
        return white
    y = np.fft.fftfreq(box)[:, None]
    power = 1 / np.maximum(np.hypot(np.fft.fftfreq(box)[None, :], y), 1 / box)
    amplitude = np.sqrt(power / power.mean())[:, : box // 2 + 1]
    return np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(box, box)).astype(np.float32)
