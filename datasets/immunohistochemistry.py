"""Patches of scikit-image's immunohistochemistry picture: is the centre stained, or not?

The picture (512×512, colour; colonic glands, FHL2 stained brown with DAB over blue haematoxylin; Center for Microscopy
and Image Analysis, University of Zurich; no known copyright restrictions) comes inside scikit-image's wheel. As in
PatchCamelyon the label looks at the centre only, and not at its surroundings; the tissue has no preferred direction.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry

from parteq.datasets.base import ArrayDataset

__all__ = ["stained_patches"]

CLASSES = ("unstained", "stained")
# Centres whose stain lies between these quantiles are neither, and left out.
_UNDECIDED = (0.45, 0.55)


def _matched(stained: NDArray[np.bool_], overall: NDArray[np.float64], bands: int, seed: int) -> NDArray[np.int64]:
    """Positions, ascending, with as many stained as unstained in each band of the patches' overall stain."""
    rng = np.random.default_rng(seed)
    edges = np.quantile(overall, np.linspace(0, 1, bands + 1)[1:-1])
    band = np.searchsorted(edges, overall)
    chosen = []
    for number in range(bands):
        sides = [np.flatnonzero((band == number) & (stained == side)) for side in (False, True)]
        count = min(len(side) for side in sides)
        chosen += [rng.permutation(side)[:count] for side in sides]
    return np.sort(np.concatenate(chosen))


def stained_patches(
    patch: int = 32, stride: int = 3, block: int = 64, centre: int = 8, bands: int = 5, seed: int = 0
) -> ArrayDataset:
    """Square patches labelled by the DAB stain within a disc at their centre.

    Stain is the mean DAB channel (Ruifrok and Johnston's colour deconvolution). The middle tenth of centres is left
    out as undecided. Brown tissue has brown neighbours, so the mean colour of a patch would give the label away: in
    each of `bands` bands of the patch's overall stain as many stained as unstained centres are kept.

    Args:
        patch: pixels on a side.
        stride: pixels from one patch to the next; patches of a region may overlap.
        block: pixels on a side of the regions; a patch lies within one region, so that two regions share no pixel.
        centre: diameter of the disc, pixels.
        bands: 1 only balances the classes; the more, the less the surroundings tell.
        seed: which of the surplus patches are left out.

    Returns:
        Images uint8 [3, patch, patch], `groups` = region number, classes unstained and stained.

    Raises:
        ValueError: sizes that do not fit into one another, or leave no patches.
    """
    picture = immunohistochemistry()
    side = picture.shape[0]
    if not 1 <= centre <= patch <= block <= side or stride < 1 or bands < 1:
        raise ValueError(f"need 1 ≤ centre ≤ patch ≤ block ≤ {side}, stride ≥ 1 and bands ≥ 1")
    # Patch corners along a side, those only whose patch ends in the block it starts in.
    corners = np.concatenate(
        [np.arange(start, start + block - patch + 1, stride) for start in range(0, side - block + 1, block)]
    )
    top, left = (grid.ravel() for grid in np.meshgrid(corners, corners, indexing="ij"))
    stain = sliding_window_view(rgb2hed(picture)[..., 2], (patch, patch))[top, left]
    offset = np.arange(patch) - (patch - 1) / 2
    disc = offset[:, None] ** 2 + offset**2 <= (centre / 2) ** 2
    middle, overall = stain[:, disc].mean(1), stain.mean((1, 2))
    low, high = np.quantile(middle, _UNDECIDED)
    decided = np.flatnonzero((middle <= low) | (middle >= high))
    stained = middle >= high
    chosen = decided[_matched(stained[decided], overall[decided], bands, seed)]
    if len(chosen) == 0:
        raise ValueError("no patches are left: use fewer bands or a smaller stride")
    rows, columns = top[chosen, None] + np.arange(patch), left[chosen, None] + np.arange(patch)
    images = np.moveaxis(picture[rows[:, :, None], columns[:, None, :]], -1, 1)
    regions = (top // block) * (side // block) + left // block
    return ArrayDataset(
        images,
        stained[chosen].astype(np.int64),
        source="scikit-image immunohistochemistry",
        classes=CLASSES,
        groups=regions[chosen],
    )
