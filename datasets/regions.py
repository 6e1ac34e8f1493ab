"""Which tiles lie together: groups and halves, from file names that bear a slide and the tile's place on it.

Neighbouring tiles look alike, so tiles held out at random tell how well a network knows the slide that it was trained
on, not the next one. Where nothing better is known, whole slides are kept together, or of one slide whole regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parteq.datasets.base import ImageDataset
from parteq.datasets.errors import DataError
from parteq.datasets.tiles import tile_places

__all__ = ["HALVES", "half_of", "spatial_groups"]

HALVES = {"left": (0, False), "right": (0, True), "top": (1, False), "bottom": (1, True)}
"""For each half of a slide, the coordinate that decides, and whether its greater values are inside."""

# Of one slide: so many strips along its longer side, each cut into so many regions.
_STRIPS, _REGIONS = 4, 3


def spatial_groups(names: Sequence[str], labels: ArrayLike) -> NDArray[np.str_] | None:
    """Groups of tiles that must not be split, from their names.

    Args:
        names: of the files, N of them, such as `1/14082_idx5_x1001_y1051_class1.png`.
        labels: class numbers [N].

    Returns:
        [N]: the slide each tile is from, where there are several and each class is on at least two of them; else one of
        12 regions with about as many tiles each, named by its extent. None unless every name bears x and y.
    """
    places = tile_places(names)
    if places is None:
        return None
    slides, positions, labels = np.array(places[0]), places[1], np.asarray(labels)
    if all(len(np.unique(slides[labels == label])) > 1 for label in np.unique(labels)):
        return slides
    return _regions(positions, prefix=f"{slides[0]} " if len(np.unique(slides)) == 1 else "")


def half_of(tiles: ImageDataset, half: str) -> ImageDataset:
    """The tiles in a half of their slide, parted at the median of x or of y; what reaches into both is in neither.

    Regions that are groups are those of the half, so that no region is in two halves.

    Args:
        tiles: with names.
        half: one of `HALVES`.

    Raises:
        DataError: the names bear no x and y, or no tile is in that half.
    """
    names = tiles.names or ()
    places = tile_places(names)
    if places is None:
        raise DataError(tiles.source, f"has no {half} half: not all names of its images bear x and y")
    axis, greater = HALVES[half]
    starts, length = places[1][:, axis], tiles.spatial[1 - axis]
    border = starts[starts >= np.median(starts)].min()
    inside = starts >= border if greater else starts + length <= border
    if not inside.any():
        raise DataError(tiles.source, f"has no {half} half: all tiles lie in a line")
    part = tiles.subset(inside)
    by_place = spatial_groups(names, tiles.labels)
    if tiles.groups is not None and by_place is not None and np.array_equal(tiles.groups, by_place):
        part.groups = spatial_groups(part.names or (), part.labels)
    return part


def _regions(positions: NDArray[np.int64], prefix: str) -> NDArray[np.str_]:
    """The region of each tile; positions [N, 2]. Tiles of equal coordinate are never parted along it."""
    longer = int(np.ptp(positions, axis=0).argmax())
    strip = _parts(positions[:, longer], _STRIPS)
    names: NDArray[Any] = np.empty(len(positions), object)
    for number in np.unique(strip):
        inside = np.flatnonzero(strip == number)
        part = _parts(positions[inside, 1 - longer], _REGIONS)
        for region in (inside[part == cut] for cut in np.unique(part)):
            (left, top), (right, bottom) = positions[region].min(0), positions[region].max(0)
            names[region] = f"{prefix}x {left} to {right}, y {top} to {bottom}"
    return names.astype(str)


def _parts(values: NDArray[np.int64], count: int) -> NDArray[np.intp]:
    """The number 0 … count - 1 of the part each value falls into, parts of about equal size."""
    return np.searchsorted(np.quantile(values, np.arange(1, count) / count), values, side="right")
