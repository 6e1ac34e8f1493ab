"""Which tiles lie together: groups made from file names that bear a slide and the tile's place on it.

Neighbouring tiles look alike, so tiles held out at random tell how well a network knows the slide that it was trained
on, not the next one. Where nothing better is known, whole slides are kept together, or of one slide whole regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parteq.datasets.tiles import tile_places

__all__ = ["spatial_groups"]

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
