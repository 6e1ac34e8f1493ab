"""Slides that tests generate: stained blobs on glass, as pyramidal TIFF files that openslide reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

GLASS = 243


def stained(height: int, width: int, seed: int = 0, glass: float = 0.5) -> NDArray[np.uint8]:
    """Stained tissue on a share of glass, uint8 [height, width, 3]; textured, and not symmetric in any way."""
    rng = np.random.default_rng(seed)
    shape = gaussian_filter(rng.standard_normal((height, width)), max(height, width) / 12)
    tissue = gaussian_filter((shape > np.quantile(shape, glass)).astype(float), 1.0)[..., None]
    nuclei = gaussian_filter(rng.standard_normal((height, width)), 1.5)[..., None] > 0.12
    colour = np.where(nuclei, (95, 60, 140), (225, 150, 190)) + rng.normal(0, 6, (height, width, 3))
    return np.clip(tissue * colour + (1 - tissue) * GLASS, 0, 255).astype(np.uint8)


def write_slide(path: Path, pixels: NDArray[np.uint8], mpp: float | None = 0.5, levels: int = 1) -> Path:
    """A tiled TIFF of pixels [height, width, 3] with so many levels, each half the one before."""
    unit = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            options = {"tile": (64, 64), "photometric": "rgb", "metadata": None, "subfiletype": int(level > 0)}
            file.write(pixels, **options, **(unit if level == 0 else {}))
            height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
            blocks = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
            pixels = blocks.mean((1, 3)).round().astype(np.uint8)
    return path
