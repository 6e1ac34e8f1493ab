"""The resolution of maps: the Fourier shell correlation, at what resolution it falls to a threshold, and a soft mask.

The correlation of two maps on a shell of frequencies is FSC = Σ F₁ F₂* / √(Σ|F₁|² Σ|F₂|²). Between half maps 0.143 is
the threshold, between a map and the truth 0.5 (Rosenthal and Henderson, JMB 2003).

A mask correlates what it cuts out. How much is found with maps whose phases beyond some shell were made random, where
whatever correlation is left is the mask's: FSC_true = (FSC_masked − FSC_random) / (1 − FSC_random) from two shells
beyond it on (Chen et al., Ultramicroscopy 2013).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from skimage.filters import threshold_otsu

__all__ = [
    "HalfMapResolution",
    "falls_to",
    "fourier_shell_correlation",
    "half_map_resolution",
    "resolution_at",
    "resolution_values",
    "soft_mask",
]

Volume = Float[np.ndarray, "box box box"]
Curve = Float[np.ndarray, " shells"]


def fourier_shell_correlation(first: Volume, second: Volume) -> Curve:
    """The correlation on the shells of radius 0, 1, …, D // 2, in units of 1/D per voxel; 0 where a map has nothing.

    Raises:
        ValueError: the volumes differ in shape or are no cubes.
    """
    if first.shape != second.shape or first.ndim != 3 or len(set(first.shape)) != 1:
        raise ValueError(f"maps of the shapes {list(first.shape)} and {list(second.shape)}: give cubes of one size")
    shells, weights = _shells(len(first))
    one, two = np.fft.rfftn(first.astype(np.float64)), np.fft.rfftn(second.astype(np.float64))

    def total(values: Float[np.ndarray, "box box half"]) -> Curve:
        return np.bincount(shells.ravel(), (weights * values).ravel())[: len(first) // 2 + 1]

    product = np.sqrt(total(np.abs(one) ** 2) * total(np.abs(two) ** 2))
    return np.divide(total((one * two.conj()).real), product, out=np.zeros_like(product), where=product > 0)


def _shells(box: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest whole radius of each point of the half transform, and how often the point stands in the whole one."""
    along, half = np.fft.fftfreq(box) * box, np.arange(box // 2 + 1)
    radius = np.sqrt(along[:, None, None] ** 2 + along[:, None] ** 2 + half**2)
    doubled = np.where((half == 0) | (2 * half == box), 1.0, 2.0)
    return np.rint(radius).astype(np.int64), np.broadcast_to(doubled, radius.shape)


def falls_to(curve: Curve, threshold: float) -> bool:
    """Whether a curve falls to a threshold before Nyquist; else `resolution_at` is a bound that the pixels set."""
    return bool((curve[1:] <= threshold).any())


def resolution_at(curve: Curve, threshold: float, box_in_angstroms: float) -> float:
    """The resolution in Å at which a curve first falls to a threshold, between shells by a straight line.

    Args:
        curve: on the shells 0, 1, …, as of `fourier_shell_correlation`.
        threshold: 0.143, 0.5, …
        box_in_angstroms: length of the box of the maps; shell i is the resolution box / i.

    Returns:
        That of the last shell if the curve does not fall so far, the length of the box if it never was above.
    """
    if not falls_to(curve, threshold):
        return box_in_angstroms / (len(curve) - 1)
    shell = 1 + int(np.argmax(curve[1:] <= threshold))
    if shell == 1:
        return box_in_angstroms
    before, after = curve[shell - 1], curve[shell]
    return float(box_in_angstroms / (shell - 1 + (before - threshold) / (before - after)))


def resolution_values(name: str, curve: Curve, threshold: float, box_in_angstroms: float) -> dict[str, float | bool]:
    """`resolution_NAME_angstrom`, as of `resolution_at`, and `resolution_NAME_at_nyquist`: if it is but a bound."""
    return {
        f"resolution_{name}_angstrom": resolution_at(curve, threshold, box_in_angstroms),
        f"resolution_{name}_at_nyquist": not falls_to(curve, threshold),
    }


def soft_mask(
    volume: Volume,
    pixel_size_in_angstroms: float,
    *,
    threshold: float | None = None,
    low_pass_in_angstroms: float = 15.0,
    extend_in_pixels: float = 3.0,
    edge_in_pixels: float = 5.0,
) -> Volume:
    """A mask that is one on the particle and its surroundings and falls to zero as half a cosine.

    Args:
        volume: a map, protein positive.
        pixel_size_in_angstroms: of the map.
        threshold: what in the low-passed map is particle; None finds it by Otsu's method. The largest connected part
            above it is taken.
        low_pass_in_angstroms: width (standard deviation in frequency 1/this) of the Gaussian that smooths the map.
        extend_in_pixels: by how much the particle is extended.
        edge_in_pixels: over which the mask falls.

    Returns:
        Values from 0 to 1; zero outside the ball that fits the box.
    """
    box = len(volume)
    smooth = ndimage.gaussian_filter(
        volume.astype(np.float64), low_pass_in_angstroms / (2 * np.pi) / pixel_size_in_angstroms
    )
    ball = _distance_from_centre(box) <= box / 2
    particle = ball & (smooth > (threshold_otsu(smooth[ball]) if threshold is None else threshold))
    parts, count = ndimage.label(particle)
    if count == 0:
        return ball.astype(np.float64)
    particle = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    beyond = ndimage.distance_transform_edt(~particle) - extend_in_pixels
    edge: Volume = 0.5 + 0.5 * np.cos(np.pi * np.clip(beyond / edge_in_pixels, 0, 1))
    return edge * ball


def _distance_from_centre(box: int) -> Volume:
    along = (np.arange(box) - box // 2) ** 2
    distance: Volume = np.sqrt(along[:, None, None] + along[:, None] + along)
    return distance


@dataclass(frozen=True)
class HalfMapResolution:
    """What two half maps say of the resolution; the curves are on the shells of `fourier_shell_correlation`.

    Attributes:
        unmasked: FSC of the half maps.
        masked: FSC of the half maps within the mask.
        randomised: FSC within the mask after the phases beyond a shell were made random.
        corrected: the masked curve, the share of the mask taken off.
        box_in_angstroms: length of the box.
    """

    unmasked: Curve
    masked: Curve
    randomised: Curve
    corrected: Curve
    box_in_angstroms: float

    def summary(self) -> dict[str, float | bool]:
        """Resolutions in Å at 0.143 and 0.5 of each curve but the randomised, and which of them are but bounds."""
        curves = {"": self.corrected, "_masked_uncorrected": self.masked, "_unmasked": self.unmasked}
        values: dict[str, float | bool] = {}
        for name, level in (("0143", 0.143), ("05", 0.5)):
            for suffix, curve in curves.items():
                values |= resolution_values(f"fsc_{name}{suffix}", curve, level, self.box_in_angstroms)
        return values


def half_map_resolution(
    first: Volume, second: Volume, mask: Volume, pixel_size_in_angstroms: float, *, seed: int = 0
) -> HalfMapResolution:
    """FSC of half maps, unmasked, masked, and corrected for the mask.

    Args:
        first: a half map.
        second: the other.
        mask: as of `soft_mask`.
        pixel_size_in_angstroms: of the maps.
        seed: of the random phases, which begin where the unmasked curve first falls below 0.8.

    Raises:
        ValueError: the volumes differ in shape or are no cubes.
    """
    unmasked, length = fourier_shell_correlation(first, second), len(first) * pixel_size_in_angstroms
    masked = fourier_shell_correlation(first * mask, second * mask)
    below = np.flatnonzero(unmasked[1:] < 0.8)
    if len(below) == 0:
        return HalfMapResolution(unmasked, masked, np.zeros_like(masked), masked, length)
    start = int(below[0]) + 1
    generator = np.random.default_rng(seed)
    noise = [_with_random_phases(half, start, generator) * mask for half in (first, second)]
    randomised = fourier_shell_correlation(noise[0], noise[1])
    corrected = masked.copy()
    # By chance it may be below zero, which is nothing to add.
    share = np.clip(randomised[start + 2 :], 0, 1 - 1e-6)
    corrected[start + 2 :] = (masked[start + 2 :] - share) / (1 - share)
    return HalfMapResolution(unmasked, masked, randomised, corrected, length)


def _with_random_phases(volume: Volume, start: int, generator: np.random.Generator) -> Volume:
    """The volume with its amplitudes, and from a shell on with the phases of white noise, which is real as it is."""
    transform = np.fft.rfftn(volume.astype(np.float64))
    noise = np.fft.rfftn(generator.normal(size=volume.shape))
    replaced = np.where(_shells(len(volume))[0] >= start, np.abs(transform) * noise / np.abs(noise), transform)
    return np.fft.irfftn(replaced, s=volume.shape)
