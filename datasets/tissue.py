"""Where on a slide there is tissue: glass is grey, stained tissue has colour.

The saturation of the thumbnail, smoothed, falls into two classes, parted where Otsu says (IEEE Transactions on Systems,
Man, and Cybernetics 9, 1979). Otsu's threshold parts anything, a slide of glass alone or of tissue alone too, so it is
kept within what a stain can look like.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import map_coordinates
from skimage.color import rgb2hsv
from skimage.filters import gaussian, threshold_otsu

__all__ = ["covered_share", "tissue_mask"]

_SMOOTHING = 1.0  # standard deviation, in pixels of the thumbnail
_PALEST, _STRONGEST = 0.05, 0.15


def tissue_mask(thumbnail: Float[np.ndarray, "height width 3"]) -> Bool[np.ndarray, "height width"]:
    """Where there is tissue on a slide, of which this is the thumbnail, in 0…1."""
    # Saturation is undefined in the dark: black ink and edges of the glass are no tissue.
    saturation = rgb2hsv(thumbnail)[..., 1] * (thumbnail.max(-1) > 0.2)
    smooth = gaussian(saturation.astype(np.float64), _SMOOTHING)
    flat = bool(np.ptp(smooth) < 1e-6)
    threshold = _PALEST if flat else float(np.clip(threshold_otsu(smooth), _PALEST, _STRONGEST))
    mask: Bool[np.ndarray, "height width"] = smooth > threshold
    return mask


def covered_share(
    mask: Bool[np.ndarray, "height width"], corners: Float[np.ndarray, "boxes 2"], size: tuple[float, float]
) -> Float[np.ndarray, " boxes"]:
    """The share of each box that a mask covers.

    Args:
        mask: of unit pixels, the upper left corner of the first at (0, 0).
        corners: x and y of the upper left corners of the boxes; anywhere in the mask, not only between pixels.
        size: width and height of the boxes.
    """
    # Of a piecewise constant function the integral from the origin is bilinear between the corners of pixels.
    integral = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0))).astype(np.float64)

    def up_to(x: Float[np.ndarray, " boxes"], y: Float[np.ndarray, " boxes"]) -> Float[np.ndarray, " boxes"]:
        found: Float[np.ndarray, " boxes"] = map_coordinates(integral, [y, x], order=1, mode="nearest")
        return found

    (left, top), (width, height) = corners.T, size
    right, bottom = left + width, top + height
    area = up_to(right, bottom) - up_to(left, bottom) - up_to(right, top) + up_to(left, top)
    return area / (width * height)
